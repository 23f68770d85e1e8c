rule topography_synth_open:
    input:
        config=stage_config("topography.synth"),
    output:
        opened=temp(open_record("topography.synth")),
    log:
        result("logs/topography.synth/open.log"),
    benchmark:
        result("benchmarks/topography.synth/open.tsv")
    wildcard_constraints:
        dataset=datasets_of("topography"),
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("topography.synth", "open")
    resources:
        **resources("topography.synth", "open"),
    shell:
        run("topography.synth", "open")


rule topography_synth_part:
    input:
        config=stage_config("topography.synth"),
        before=records_before("topography.synth"),
    output:
        record=temp(part_record("topography.synth")),
    log:
        result("logs/topography.synth/round-{round}.part-{part}.log"),
    benchmark:
        result("benchmarks/topography.synth/round-{round}.part-{part}.tsv")
    wildcard_constraints:
        dataset=datasets_of("topography"),
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("topography.synth", "part")
    resources:
        **resources("topography.synth", "part"),
    shell:
        run("topography.synth", "part")


rule topography_synth:
    input:
        config=stage_config("topography.synth"),
        records=all_records("topography.synth"),
    output:
        sample=store("sample"),
        target=store("target"),
        truth=store("truth"),
    log:
        result("logs/topography.synth.log"),
    benchmark:
        result("benchmarks/topography.synth.tsv")
    wildcard_constraints:
        dataset=datasets_of("topography"),
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("topography.synth")
    resources:
        **resources("topography.synth"),
    shell:
        run("topography.synth")


rule topography_ingest_open:
    input:
        config=stage_config("topography.ingest"),
        raw=ancient(flow.raw),
        sample=optional(store("sample"), when="inputs.instrument"),
        target=optional(store("target"), when="inputs.instrument"),
    output:
        opened=temp(open_record("topography.ingest")),
    log:
        result("logs/topography.ingest/open.log"),
    benchmark:
        result("benchmarks/topography.ingest/open.tsv")
    wildcard_constraints:
        dataset=datasets_of("topography"),
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("topography.ingest", "open")
    resources:
        **resources("topography.ingest", "open"),
    shell:
        run("topography.ingest", "open")


rule topography_ingest_part:
    input:
        config=stage_config("topography.ingest"),
        raw=ancient(flow.raw),
        sample=optional(store("sample"), when="inputs.instrument"),
        target=optional(store("target"), when="inputs.instrument"),
        before=records_before("topography.ingest"),
    output:
        record=temp(part_record("topography.ingest")),
    log:
        result("logs/topography.ingest/round-{round}.part-{part}.log"),
    benchmark:
        result("benchmarks/topography.ingest/round-{round}.part-{part}.tsv")
    wildcard_constraints:
        dataset=datasets_of("topography"),
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("topography.ingest", "part")
    resources:
        **resources("topography.ingest", "part"),
    shell:
        run("topography.ingest", "part")


rule topography_ingest:
    input:
        config=stage_config("topography.ingest"),
        raw=ancient(flow.raw),
        sample=optional(store("sample"), when="inputs.instrument"),
        target=optional(store("target"), when="inputs.instrument"),
        records=all_records("topography.ingest"),
    output:
        raw=store("raw"),
    log:
        result("logs/topography.ingest.log"),
    benchmark:
        result("benchmarks/topography.ingest.tsv")
    wildcard_constraints:
        dataset=datasets_of("topography"),
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("topography.ingest")
    resources:
        **resources("topography.ingest"),
    shell:
        run("topography.ingest")


rule topography_register:
    input:
        config=stage_config("topography.register"),
        raw=store("raw"),
    output:
        registered=store("registered"),
    log:
        result("logs/topography.register.log"),
    benchmark:
        result("benchmarks/topography.register.tsv")
    wildcard_constraints:
        dataset=datasets_of("topography"),
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("topography.register")
    resources:
        **resources("topography.register"),
    shell:
        run("topography.register")


rule topography_calibrate_open:
    input:
        config=stage_config("topography.calibrate"),
        raw=store("raw"),
        known=flow.named("calibrate.calibration"),
    output:
        opened=temp(open_record("topography.calibrate")),
    log:
        result("logs/topography.calibrate/open.log"),
    benchmark:
        result("benchmarks/topography.calibrate/open.tsv")
    wildcard_constraints:
        dataset=datasets_of("topography"),
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("topography.calibrate", "open")
    resources:
        **resources("topography.calibrate", "open"),
    shell:
        run("topography.calibrate", "open")


rule topography_calibrate_part:
    input:
        config=stage_config("topography.calibrate"),
        raw=store("raw"),
        known=flow.named("calibrate.calibration"),
        before=records_before("topography.calibrate"),
    output:
        record=temp(part_record("topography.calibrate")),
    log:
        result("logs/topography.calibrate/round-{round}.part-{part}.log"),
    benchmark:
        result("benchmarks/topography.calibrate/round-{round}.part-{part}.tsv")
    wildcard_constraints:
        dataset=datasets_of("topography"),
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("topography.calibrate", "part")
    resources:
        **resources("topography.calibrate", "part"),
    shell:
        run("topography.calibrate", "part")


rule topography_calibrate:
    input:
        config=stage_config("topography.calibrate"),
        raw=store("raw"),
        known=flow.named("calibrate.calibration"),
        records=all_records("topography.calibrate"),
    output:
        calibration=store("calibration"),
    log:
        result("logs/topography.calibrate.log"),
    benchmark:
        result("benchmarks/topography.calibrate.tsv")
    wildcard_constraints:
        dataset=datasets_of("topography"),
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("topography.calibrate")
    resources:
        **resources("topography.calibrate"),
    shell:
        run("topography.calibrate")


rule topography_train:
    input:
        config=stage_config("topography.train"),
        raw=store("raw"),
        registered=optional(store("registered"), when="registers"),
        calibration=store("calibration"),
    output:
        network=result("network.pt"),
        losses=report(result("losses.tsv"), **figure("topography_losses", "Topography")),
        training=store("training"),
    log:
        result("logs/topography.train.log"),
    benchmark:
        result("benchmarks/topography.train.tsv")
    wildcard_constraints:
        dataset=datasets_of("topography"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("topography.train")
    resources:
        **resources("topography.train"),
    shell:
        run("topography.train")


rule topography_infer_open:
    input:
        config=stage_config("topography.infer"),
        raw=store("raw"),
        registered=optional(store("registered"), when="registers"),
        calibration=store("calibration"),
        network=result("network.pt"),
    output:
        opened=temp(open_record("topography.infer")),
    log:
        result("logs/topography.infer/open.log"),
    benchmark:
        result("benchmarks/topography.infer/open.tsv")
    wildcard_constraints:
        dataset=datasets_of("topography"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("topography.infer", "open")
    resources:
        **resources("topography.infer", "open"),
    shell:
        run("topography.infer", "open")


rule topography_infer_part:
    input:
        config=stage_config("topography.infer"),
        raw=store("raw"),
        registered=optional(store("registered"), when="registers"),
        calibration=store("calibration"),
        network=result("network.pt"),
        before=records_before("topography.infer"),
    output:
        record=temp(part_record("topography.infer")),
    log:
        result("logs/topography.infer/round-{round}.part-{part}.log"),
    benchmark:
        result("benchmarks/topography.infer/round-{round}.part-{part}.tsv")
    wildcard_constraints:
        dataset=datasets_of("topography"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("topography.infer", "part")
    resources:
        **resources("topography.infer", "part"),
    shell:
        run("topography.infer", "part")


rule topography_infer:
    input:
        config=stage_config("topography.infer"),
        raw=store("raw"),
        registered=optional(store("registered"), when="registers"),
        calibration=store("calibration"),
        network=result("network.pt"),
        records=all_records("topography.infer"),
    output:
        views=store("views"),
    log:
        result("logs/topography.infer.log"),
    benchmark:
        result("benchmarks/topography.infer.tsv")
    wildcard_constraints:
        dataset=datasets_of("topography"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("topography.infer")
    resources:
        **resources("topography.infer"),
    shell:
        run("topography.infer")


rule topography_mosaic_open:
    input:
        config=stage_config("topography.mosaic"),
        raw=store("raw"),
        registered=optional(store("registered"), when="registers"),
        calibration=store("calibration"),
        views=store("views"),
    output:
        opened=temp(open_record("topography.mosaic")),
    log:
        result("logs/topography.mosaic/open.log"),
    benchmark:
        result("benchmarks/topography.mosaic/open.tsv")
    wildcard_constraints:
        dataset=datasets_of("topography"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("topography.mosaic", "open")
    resources:
        **resources("topography.mosaic", "open"),
    shell:
        run("topography.mosaic", "open")


rule topography_mosaic_part:
    input:
        config=stage_config("topography.mosaic"),
        raw=store("raw"),
        registered=optional(store("registered"), when="registers"),
        calibration=store("calibration"),
        views=store("views"),
        before=records_before("topography.mosaic"),
    output:
        record=temp(part_record("topography.mosaic")),
    log:
        result("logs/topography.mosaic/round-{round}.part-{part}.log"),
    benchmark:
        result("benchmarks/topography.mosaic/round-{round}.part-{part}.tsv")
    wildcard_constraints:
        dataset=datasets_of("topography"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("topography.mosaic", "part")
    resources:
        **resources("topography.mosaic", "part"),
    shell:
        run("topography.mosaic", "part")


rule topography_mosaic:
    input:
        config=stage_config("topography.mosaic"),
        raw=store("raw"),
        registered=optional(store("registered"), when="registers"),
        calibration=store("calibration"),
        views=store("views"),
        records=all_records("topography.mosaic"),
    output:
        mosaic=store("mosaic"),
    log:
        result("logs/topography.mosaic.log"),
    benchmark:
        result("benchmarks/topography.mosaic.tsv")
    wildcard_constraints:
        dataset=datasets_of("topography"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("topography.mosaic")
    resources:
        **resources("topography.mosaic"),
    shell:
        run("topography.mosaic")


rule topography_tiff:
    input:
        config=stage_config("topography.tiff"),
        mosaic=store("mosaic"),
    output:
        colour_tiff=result("mosaic_colour.ome.tif"),
        height_tiff=result("mosaic_height.ome.tif"),
    log:
        result("logs/topography.tiff.log"),
    benchmark:
        result("benchmarks/topography.tiff.tsv")
    wildcard_constraints:
        dataset=datasets_of("topography"),
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("topography.tiff")
    resources:
        **resources("topography.tiff"),
    shell:
        run("topography.tiff")


rule topography_mesh:
    input:
        config=stage_config("topography.mesh"),
        mosaic=store("mosaic"),
    output:
        mesh=result("mosaic.ply"),
    log:
        result("logs/topography.mesh.log"),
    benchmark:
        result("benchmarks/topography.mesh.tsv")
    wildcard_constraints:
        dataset=datasets_of("topography"),
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("topography.mesh")
    resources:
        **resources("topography.mesh"),
    shell:
        run("topography.mesh")


rule topography_evaluate:
    input:
        config=stage_config("topography.evaluate"),
        raw=store("raw"),
        registered=optional(store("registered"), when="registers"),
        truth=optional(store("truth"), when="inputs.instrument"),
        calibration=store("calibration"),
        views=store("views"),
        mosaic=store("mosaic"),
    output:
        metrics=report(
            result("metrics.json"), **figure("topography_metrics", "Topography")
        ),
        evaluation=store("evaluation"),
        estimators=report(
            result("estimators.tsv"), **figure("estimators", "Topography")
        ),
        height_deciles=result("height_deciles.tsv"),
        field_radius=result("field_radius.tsv"),
        height_histogram=result("height_histogram.tsv"),
        seam_profile=result("seam_profile.tsv"),
        gauge_planes=result("gauge_planes.tsv"),
    log:
        result("logs/topography.evaluate.log"),
    benchmark:
        result("benchmarks/topography.evaluate.tsv")
    wildcard_constraints:
        dataset=datasets_of("topography"),
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("topography.evaluate")
    resources:
        **resources("topography.evaluate"),
    shell:
        run("topography.evaluate")


# Seconds of work on what is already small: not worth a place in a cluster's queue.
rule topography_report:
    input:
        config=stage_config("topography.report"),
        raw=store("raw"),
        registered=optional(store("registered"), when="registers"),
        truth=optional(store("truth"), when="inputs.instrument"),
        calibration=store("calibration"),
        training=store("training"),
        losses=result("losses.tsv"),
        views=store("views"),
        mosaic=store("mosaic"),
        evaluation=store("evaluation"),
        metrics=result("metrics.json"),
        estimators=result("estimators.tsv"),
        height_deciles=result("height_deciles.tsv"),
        field_radius=result("field_radius.tsv"),
        height_histogram=result("height_histogram.tsv"),
        seam_profile=result("seam_profile.tsv"),
        gauge_planes=result("gauge_planes.tsv"),
    output:
        page=report(result("report.html"), **figure("topography_page", "Topography")),
    log:
        result("logs/topography.report.log"),
    benchmark:
        result("benchmarks/topography.report.tsv")
    wildcard_constraints:
        dataset=datasets_of("topography"),
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("topography.report")
    resources:
        **resources("topography.report"),
    shell:
        run("topography.report")
