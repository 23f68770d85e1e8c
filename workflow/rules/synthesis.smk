rule synthesis_ingest:
    input:
        config=stage_config("synthesis.ingest"),
        raw=ancient(flow.raw),
    output:
        real=store("real"),
    log:
        result("logs/synthesis.ingest.log"),
    benchmark:
        result("benchmarks/synthesis.ingest.tsv")
    wildcard_constraints:
        dataset=datasets_of("synthesis"),
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("synthesis.ingest")
    resources:
        **resources("synthesis.ingest"),
    shell:
        run("synthesis.ingest")


rule synthesis_prototypes:
    input:
        config=stage_config("synthesis.prototypes"),
        real=store("real"),
    output:
        prototypes=store("prototypes"),
    log:
        result("logs/synthesis.prototypes.log"),
    benchmark:
        result("benchmarks/synthesis.prototypes.tsv")
    wildcard_constraints:
        dataset=datasets_of("synthesis"),
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("synthesis.prototypes")
    resources:
        **resources("synthesis.prototypes"),
    shell:
        run("synthesis.prototypes")


rule synthesis_phantoms_open:
    input:
        config=stage_config("synthesis.phantoms"),
        prototypes=optional(store("prototypes"), when="has_library"),
    output:
        opened=temp(open_record("synthesis.phantoms")),
    log:
        result("logs/synthesis.phantoms/open.log"),
    benchmark:
        result("benchmarks/synthesis.phantoms/open.tsv")
    wildcard_constraints:
        dataset=datasets_of("synthesis"),
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("synthesis.phantoms", "open")
    resources:
        **resources("synthesis.phantoms", "open"),
    shell:
        run("synthesis.phantoms", "open")


rule synthesis_phantoms_part:
    input:
        config=stage_config("synthesis.phantoms"),
        prototypes=optional(store("prototypes"), when="has_library"),
        before=records_before("synthesis.phantoms"),
    output:
        record=temp(part_record("synthesis.phantoms")),
    log:
        result("logs/synthesis.phantoms/round-{round}.part-{part}.log"),
    benchmark:
        result("benchmarks/synthesis.phantoms/round-{round}.part-{part}.tsv")
    wildcard_constraints:
        dataset=datasets_of("synthesis"),
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("synthesis.phantoms", "part")
    resources:
        **resources("synthesis.phantoms", "part"),
    shell:
        run("synthesis.phantoms", "part")


rule synthesis_phantoms:
    input:
        config=stage_config("synthesis.phantoms"),
        prototypes=optional(store("prototypes"), when="has_library"),
        records=all_records("synthesis.phantoms"),
    output:
        phantoms=store("phantoms"),
        placed_nuclei=result("placed_nuclei.tsv"),
        placed=result("placed_nuclei.parquet"),
    log:
        result("logs/synthesis.phantoms.log"),
    benchmark:
        result("benchmarks/synthesis.phantoms.tsv")
    wildcard_constraints:
        dataset=datasets_of("synthesis"),
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("synthesis.phantoms")
    resources:
        **resources("synthesis.phantoms"),
    shell:
        run("synthesis.phantoms")


rule synthesis_simulate_open:
    input:
        config=stage_config("synthesis.simulate"),
        phantoms=store("phantoms"),
    output:
        opened=temp(open_record("synthesis.simulate")),
    log:
        result("logs/synthesis.simulate/open.log"),
    benchmark:
        result("benchmarks/synthesis.simulate/open.tsv")
    wildcard_constraints:
        dataset=datasets_of("synthesis"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("synthesis.simulate", "open")
    resources:
        **resources("synthesis.simulate", "open"),
    shell:
        run("synthesis.simulate", "open")


rule synthesis_simulate_part:
    input:
        config=stage_config("synthesis.simulate"),
        phantoms=store("phantoms"),
        before=records_before("synthesis.simulate"),
    output:
        record=temp(part_record("synthesis.simulate")),
    log:
        result("logs/synthesis.simulate/round-{round}.part-{part}.log"),
    benchmark:
        result("benchmarks/synthesis.simulate/round-{round}.part-{part}.tsv")
    wildcard_constraints:
        dataset=datasets_of("synthesis"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("synthesis.simulate", "part")
    resources:
        **resources("synthesis.simulate", "part"),
    shell:
        run("synthesis.simulate", "part")


rule synthesis_simulate:
    input:
        config=stage_config("synthesis.simulate"),
        phantoms=store("phantoms"),
        records=all_records("synthesis.simulate"),
    output:
        cultures=store("cultures"),
    log:
        result("logs/synthesis.simulate.log"),
    benchmark:
        result("benchmarks/synthesis.simulate.tsv")
    wildcard_constraints:
        dataset=datasets_of("synthesis"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("synthesis.simulate")
    resources:
        **resources("synthesis.simulate"),
    shell:
        run("synthesis.simulate")


rule synthesis_train:
    input:
        config=stage_config("synthesis.train"),
        real=store("real"),
        cultures=optional(store("cultures"), when="simulates"),
    output:
        network=result("network.pt"),
        losses=report(result("losses.tsv"), **figure("synthesis_losses", "Synthesis")),
        training=store("training"),
        events=result("tensorboard/events.out.tfevents.0.gigascope"),
    log:
        result("logs/synthesis.train.log"),
    benchmark:
        result("benchmarks/synthesis.train.tsv")
    wildcard_constraints:
        dataset=datasets_of("synthesis"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("synthesis.train")
    resources:
        **resources("synthesis.train"),
    shell:
        run("synthesis.train")


rule synthesis_infer_open:
    input:
        config=stage_config("synthesis.infer"),
        cultures=optional(store("cultures"), when="simulates"),
        real=optional(store("real"), when="gives_naive"),
        network=result("network.pt"),
    output:
        opened=temp(open_record("synthesis.infer")),
    log:
        result("logs/synthesis.infer/open.log"),
    benchmark:
        result("benchmarks/synthesis.infer/open.tsv")
    wildcard_constraints:
        dataset=datasets_of("synthesis"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("synthesis.infer", "open")
    resources:
        **resources("synthesis.infer", "open"),
    shell:
        run("synthesis.infer", "open")


rule synthesis_infer_part:
    input:
        config=stage_config("synthesis.infer"),
        cultures=optional(store("cultures"), when="simulates"),
        real=optional(store("real"), when="gives_naive"),
        network=result("network.pt"),
        before=records_before("synthesis.infer"),
    output:
        record=temp(part_record("synthesis.infer")),
    log:
        result("logs/synthesis.infer/round-{round}.part-{part}.log"),
    benchmark:
        result("benchmarks/synthesis.infer/round-{round}.part-{part}.tsv")
    wildcard_constraints:
        dataset=datasets_of("synthesis"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("synthesis.infer", "part")
    resources:
        **resources("synthesis.infer", "part"),
    shell:
        run("synthesis.infer", "part")


rule synthesis_infer:
    input:
        config=stage_config("synthesis.infer"),
        cultures=optional(store("cultures"), when="simulates"),
        real=optional(store("real"), when="gives_naive"),
        network=result("network.pt"),
        records=all_records("synthesis.infer"),
    output:
        adapted=store("adapted"),
    log:
        result("logs/synthesis.infer.log"),
    benchmark:
        result("benchmarks/synthesis.infer.tsv")
    wildcard_constraints:
        dataset=datasets_of("synthesis"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("synthesis.infer")
    resources:
        **resources("synthesis.infer"),
    shell:
        run("synthesis.infer")


rule synthesis_evaluate:
    input:
        config=stage_config("synthesis.evaluate"),
        cultures=optional(store("cultures"), when="simulates"),
        real=optional(store("real"), when="has_real"),
        adapted=optional(store("adapted"), when="has_real"),
        network=optional(result("network.pt"), when="has_real"),
    output:
        metrics=report(
            result("metrics.json"), **figure("synthesis_metrics", "Synthesis")
        ),
        evaluation=store("evaluation"),
        distances=report(
            result("distances.tsv"), **figure("synthesis_distances", "Synthesis")
        ),
        depth_distances=result("depth_distances.tsv"),
        depth_profiles=result("depth_profiles.tsv"),
        edge_curves=result("edge_curves.tsv"),
        spectra=result("spectra.tsv"),
        intensities=result("intensities.tsv"),
        photon_transfer=result("photon_transfer.tsv"),
        scores=result("scores.tsv"),
        instances=result("instances.tsv"),
        groups=result("groups.tsv"),
        alignment=result("alignment.tsv"),
        shifts=result("shifts.tsv"),
        downstream=result("downstream.tsv"),
        nuclei=result("nuclei.tsv"),
        parity=result("parity.tsv"),
    log:
        result("logs/synthesis.evaluate.log"),
    benchmark:
        result("benchmarks/synthesis.evaluate.tsv")
    wildcard_constraints:
        dataset=datasets_of("synthesis"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("synthesis.evaluate")
    resources:
        **resources("synthesis.evaluate"),
    shell:
        run("synthesis.evaluate")


# Seconds of work on what is already small: not worth a place in a cluster's queue.
rule synthesis_report:
    input:
        config=stage_config("synthesis.report"),
        cultures=optional(store("cultures"), when="simulates"),
        evaluation=store("evaluation"),
        metrics=result("metrics.json"),
        distances=result("distances.tsv"),
        depth_distances=result("depth_distances.tsv"),
        depth_profiles=result("depth_profiles.tsv"),
        edge_curves=result("edge_curves.tsv"),
        spectra=result("spectra.tsv"),
        intensities=result("intensities.tsv"),
        photon_transfer=result("photon_transfer.tsv"),
        scores=result("scores.tsv"),
        instances=result("instances.tsv"),
        groups=result("groups.tsv"),
        alignment=result("alignment.tsv"),
        shifts=result("shifts.tsv"),
        downstream=result("downstream.tsv"),
        nuclei=result("nuclei.tsv"),
        parity=result("parity.tsv"),
        real=optional(store("real"), when="has_real"),
        prototypes=optional(store("prototypes"), when="has_library"),
        phantoms=optional(store("phantoms"), when="simulates"),
        training=optional(store("training"), when="has_real"),
        adapted=optional(store("adapted"), when="has_real"),
    output:
        page=report(result("report.html"), **figure("synthesis_page", "Synthesis")),
    log:
        result("logs/synthesis.report.log"),
    benchmark:
        result("benchmarks/synthesis.report.tsv")
    wildcard_constraints:
        dataset=datasets_of("synthesis"),
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("synthesis.report")
    resources:
        **resources("synthesis.report"),
    shell:
        run("synthesis.report")
