rule tomography_ingest:
    input:
        config=stage_config("tomography.ingest"),
        raw=ancient(flow.raw),
    output:
        tilt_series=store("tilt_series"),
    log:
        result("logs/tomography.ingest.log"),
    benchmark:
        result("benchmarks/tomography.ingest.tsv")
    wildcard_constraints:
        dataset=datasets_of("tomography"),
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("tomography.ingest")
    resources:
        **resources("tomography.ingest"),
    shell:
        run("tomography.ingest")


rule tomography_prealign:
    input:
        config=stage_config("tomography.prealign"),
        tilt_series=store("tilt_series"),
    output:
        prealigned=store("prealigned"),
        shifts=result("prealign_shifts.tsv"),
        xf=result("prealign.xf"),
    log:
        result("logs/tomography.prealign.log"),
    benchmark:
        result("benchmarks/tomography.prealign.tsv")
    wildcard_constraints:
        dataset=datasets_of("tomography"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("tomography.prealign")
    resources:
        **resources("tomography.prealign"),
    shell:
        run("tomography.prealign")


rule tomography_reconstruct_open:
    input:
        config=stage_config("tomography.reconstruct"),
        tilt_series=store("tilt_series"),
        prealigned=store("prealigned"),
    output:
        opened=temp(open_record("tomography.reconstruct")),
    log:
        result("logs/tomography.reconstruct/open.log"),
    benchmark:
        result("benchmarks/tomography.reconstruct/open.tsv")
    wildcard_constraints:
        dataset=datasets_of("tomography"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("tomography.reconstruct", "open")
    resources:
        **resources("tomography.reconstruct", "open"),
    shell:
        run("tomography.reconstruct", "open")


rule tomography_reconstruct_part:
    input:
        config=stage_config("tomography.reconstruct"),
        tilt_series=store("tilt_series"),
        prealigned=store("prealigned"),
        before=records_before("tomography.reconstruct"),
    output:
        record=temp(part_record("tomography.reconstruct")),
    log:
        result("logs/tomography.reconstruct/round-{round}.part-{part}.log"),
    benchmark:
        result("benchmarks/tomography.reconstruct/round-{round}.part-{part}.tsv")
    wildcard_constraints:
        dataset=datasets_of("tomography"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("tomography.reconstruct", "part")
    resources:
        **resources("tomography.reconstruct", "part"),
    shell:
        run("tomography.reconstruct", "part")


rule tomography_reconstruct:
    input:
        config=stage_config("tomography.reconstruct"),
        tilt_series=store("tilt_series"),
        prealigned=store("prealigned"),
        records=all_records("tomography.reconstruct"),
    output:
        tomogram=store("tomogram"),
        aligned=store("aligned"),
        shifts=report(result("shifts.tsv"), **figure("shifts", "Tomography")),
        history=report(result("history.tsv"), **figure("history", "Tomography")),
        xf=result("shifts.xf"),
        tlt=result("shifts.tlt"),
        aln=result("shifts.aln"),
        json=result("shifts.json"),
        newst=result("newst.com"),
        tilt=result("tilt.com"),
    log:
        result("logs/tomography.reconstruct.log"),
    benchmark:
        result("benchmarks/tomography.reconstruct.tsv")
    wildcard_constraints:
        dataset=datasets_of("tomography"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("tomography.reconstruct")
    resources:
        **resources("tomography.reconstruct"),
    shell:
        run("tomography.reconstruct")


rule tomography_halves_open:
    input:
        config=stage_config("tomography.halves"),
        tilt_series=store("tilt_series"),
        tomogram=store("tomogram"),
    output:
        opened=temp(open_record("tomography.halves")),
    log:
        result("logs/tomography.halves/open.log"),
    benchmark:
        result("benchmarks/tomography.halves/open.tsv")
    wildcard_constraints:
        dataset=datasets_of("tomography"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("tomography.halves", "open")
    resources:
        **resources("tomography.halves", "open"),
    shell:
        run("tomography.halves", "open")


rule tomography_halves_part:
    input:
        config=stage_config("tomography.halves"),
        tilt_series=store("tilt_series"),
        tomogram=store("tomogram"),
        before=records_before("tomography.halves"),
    output:
        record=temp(part_record("tomography.halves")),
    log:
        result("logs/tomography.halves/round-{round}.part-{part}.log"),
    benchmark:
        result("benchmarks/tomography.halves/round-{round}.part-{part}.tsv")
    wildcard_constraints:
        dataset=datasets_of("tomography"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("tomography.halves", "part")
    resources:
        **resources("tomography.halves", "part"),
    shell:
        run("tomography.halves", "part")


rule tomography_halves:
    input:
        config=stage_config("tomography.halves"),
        tilt_series=store("tilt_series"),
        tomogram=store("tomogram"),
        records=all_records("tomography.halves"),
    output:
        halves=store("halves"),
    log:
        result("logs/tomography.halves.log"),
    benchmark:
        result("benchmarks/tomography.halves.tsv")
    wildcard_constraints:
        dataset=datasets_of("tomography"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("tomography.halves")
    resources:
        **resources("tomography.halves"),
    shell:
        run("tomography.halves")


rule tomography_evaluate:
    input:
        config=stage_config("tomography.evaluate"),
        tilt_series=store("tilt_series"),
        prealigned=store("prealigned"),
        tomogram=store("tomogram"),
        halves=optional(store("halves"), when="halves.enabled"),
    output:
        metrics=report(result("metrics.json"), **figure("metrics", "Tomography")),
        fsc=report(result("fsc.tsv"), **figure("fsc", "Tomography")),
        frc_views=report(result("frc_views.tsv"), **figure("frc_views", "Tomography")),
    log:
        result("logs/tomography.evaluate.log"),
    benchmark:
        result("benchmarks/tomography.evaluate.tsv")
    wildcard_constraints:
        dataset=datasets_of("tomography"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("tomography.evaluate")
    resources:
        **resources("tomography.evaluate"),
    shell:
        run("tomography.evaluate")


# Seconds of work on what is already small: not worth a place in a cluster's queue.
rule tomography_report:
    input:
        config=stage_config("tomography.report"),
        tilt_series=store("tilt_series"),
        prealigned=store("prealigned"),
        tomogram=store("tomogram"),
        aligned=store("aligned"),
        history=result("history.tsv"),
        metrics=result("metrics.json"),
        fsc=result("fsc.tsv"),
        frc_views=result("frc_views.tsv"),
        halves=optional(store("halves"), when="halves.enabled"),
    output:
        page=report(result("report.html"), **figure("page", "Tomography")),
    log:
        result("logs/tomography.report.log"),
    benchmark:
        result("benchmarks/tomography.report.tsv")
    wildcard_constraints:
        dataset=datasets_of("tomography"),
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("tomography.report")
    resources:
        **resources("tomography.report"),
    shell:
        run("tomography.report")
