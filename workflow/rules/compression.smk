rule compression_ingest:
    input:
        config=stage_config("compression.ingest"),
        raw=ancient(flow.raw),
    output:
        volume=store("volume"),
    log:
        result("logs/compression.ingest.log"),
    benchmark:
        result("benchmarks/compression.ingest.tsv")
    wildcard_constraints:
        dataset=datasets_of("compression"),
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("compression.ingest")
    resources:
        **resources("compression.ingest"),
    shell:
        run("compression.ingest")


rule compression_gate_open:
    input:
        config=stage_config("compression.gate"),
        volume=store("volume"),
    output:
        opened=temp(open_record("compression.gate")),
    log:
        result("logs/compression.gate/open.log"),
    benchmark:
        result("benchmarks/compression.gate/open.tsv")
    wildcard_constraints:
        dataset=datasets_of("compression"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("compression.gate", "open")
    resources:
        **resources("compression.gate", "open"),
    shell:
        run("compression.gate", "open")


rule compression_gate_part:
    input:
        config=stage_config("compression.gate"),
        volume=store("volume"),
        before=records_before("compression.gate"),
    output:
        record=temp(part_record("compression.gate")),
    log:
        result("logs/compression.gate/round-{round}.part-{part}.log"),
    benchmark:
        result("benchmarks/compression.gate/round-{round}.part-{part}.tsv")
    wildcard_constraints:
        dataset=datasets_of("compression"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("compression.gate", "part")
    resources:
        **resources("compression.gate", "part"),
    shell:
        run("compression.gate", "part")


rule compression_gate:
    input:
        config=stage_config("compression.gate"),
        volume=store("volume"),
        records=all_records("compression.gate"),
    output:
        gate=store("gate"),
    log:
        result("logs/compression.gate.log"),
    benchmark:
        result("benchmarks/compression.gate.tsv")
    wildcard_constraints:
        dataset=datasets_of("compression"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("compression.gate")
    resources:
        **resources("compression.gate"),
    shell:
        run("compression.gate")


rule compression_fit_open:
    input:
        config=stage_config("compression.fit"),
        volume=store("volume"),
        gate=store("gate"),
    output:
        opened=temp(open_record("compression.fit")),
    log:
        result("logs/compression.fit/open.log"),
    benchmark:
        result("benchmarks/compression.fit/open.tsv")
    wildcard_constraints:
        dataset=datasets_of("compression"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("compression.fit", "open")
    resources:
        **resources("compression.fit", "open"),
    shell:
        run("compression.fit", "open")


rule compression_fit_part:
    input:
        config=stage_config("compression.fit"),
        volume=store("volume"),
        gate=store("gate"),
        before=records_before("compression.fit"),
    output:
        record=temp(part_record("compression.fit")),
    log:
        result("logs/compression.fit/round-{round}.part-{part}.log"),
    benchmark:
        result("benchmarks/compression.fit/round-{round}.part-{part}.tsv")
    wildcard_constraints:
        dataset=datasets_of("compression"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("compression.fit", "part")
    resources:
        **resources("compression.fit", "part"),
    shell:
        run("compression.fit", "part")


rule compression_fit:
    input:
        config=stage_config("compression.fit"),
        volume=store("volume"),
        gate=store("gate"),
        records=all_records("compression.fit"),
    output:
        gmix=result("gaussians.gmix"),
        gaussians=store("gaussians"),
        bricks=report(result("fit_bricks.tsv"), **figure("fit_bricks", "Compression")),
    log:
        result("logs/compression.fit.log"),
    benchmark:
        result("benchmarks/compression.fit.tsv")
    wildcard_constraints:
        dataset=datasets_of("compression"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("compression.fit")
    resources:
        **resources("compression.fit"),
    shell:
        run("compression.fit")


rule compression_decode_open:
    input:
        config=stage_config("compression.decode"),
        gmix=result("gaussians.gmix"),
    output:
        opened=temp(open_record("compression.decode")),
    log:
        result("logs/compression.decode/open.log"),
    benchmark:
        result("benchmarks/compression.decode/open.tsv")
    wildcard_constraints:
        dataset=datasets_of("compression"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("compression.decode", "open")
    resources:
        **resources("compression.decode", "open"),
    shell:
        run("compression.decode", "open")


rule compression_decode_part:
    input:
        config=stage_config("compression.decode"),
        gmix=result("gaussians.gmix"),
        before=records_before("compression.decode"),
    output:
        record=temp(part_record("compression.decode")),
    log:
        result("logs/compression.decode/round-{round}.part-{part}.log"),
    benchmark:
        result("benchmarks/compression.decode/round-{round}.part-{part}.tsv")
    wildcard_constraints:
        dataset=datasets_of("compression"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("compression.decode", "part")
    resources:
        **resources("compression.decode", "part"),
    shell:
        run("compression.decode", "part")


rule compression_decode:
    input:
        config=stage_config("compression.decode"),
        gmix=result("gaussians.gmix"),
        records=all_records("compression.decode"),
    output:
        decoded=store("decoded"),
    log:
        result("logs/compression.decode.log"),
    benchmark:
        result("benchmarks/compression.decode.tsv")
    wildcard_constraints:
        dataset=datasets_of("compression"),
    conda:
        "../../envs/gpu.yaml"
    threads: threads_of("compression.decode")
    resources:
        **resources("compression.decode"),
    shell:
        run("compression.decode")


rule compression_evaluate:
    input:
        config=stage_config("compression.evaluate"),
        volume=store("volume"),
        gate=store("gate"),
        gmix=result("gaussians.gmix"),
        decoded=optional(store("decoded"), when="decode.enabled"),
    output:
        metrics=report(
            result("metrics.json"), **figure("compression_metrics", "Compression")
        ),
        frames=report(result("frames.tsv"), **figure("frames", "Compression")),
        codecs=report(result("codecs.tsv"), **figure("codecs", "Compression")),
        curves=report(result("curves.tsv"), **figure("curves", "Compression")),
        deciles=report(result("deciles.tsv"), **figure("deciles", "Compression")),
        components=report(
            result("components.tsv"), **figure("components", "Compression")
        ),
        codec_pictures=store("codec_pictures"),
    log:
        result("logs/compression.evaluate.log"),
    benchmark:
        result("benchmarks/compression.evaluate.tsv")
    wildcard_constraints:
        dataset=datasets_of("compression"),
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("compression.evaluate")
    resources:
        **resources("compression.evaluate"),
    shell:
        run("compression.evaluate")


# Seconds of work on what is already small: not worth a place in a cluster's queue.
rule compression_report:
    input:
        config=stage_config("compression.report"),
        volume=store("volume"),
        gate=store("gate"),
        gmix=result("gaussians.gmix"),
        gaussians=store("gaussians"),
        bricks=result("fit_bricks.tsv"),
        metrics=result("metrics.json"),
        frames=result("frames.tsv"),
        codecs=result("codecs.tsv"),
        curves=result("curves.tsv"),
        deciles=result("deciles.tsv"),
        components=result("components.tsv"),
        codec_pictures=store("codec_pictures"),
        decoded=optional(store("decoded"), when="decode.enabled"),
    output:
        page=report(result("report.html"), **figure("compression_page", "Compression")),
    log:
        result("logs/compression.report.log"),
    benchmark:
        result("benchmarks/compression.report.tsv")
    wildcard_constraints:
        dataset=datasets_of("compression"),
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("compression.report")
    resources:
        **resources("compression.report"),
    shell:
        run("compression.report")
