rule toy_ingest:
    input:
        config=stage_config("toy.ingest"),
    output:
        volume=store("volume"),
    log:
        result("logs/toy.ingest.log"),
    benchmark:
        result("benchmarks/toy.ingest.tsv")
    wildcard_constraints:
        dataset=datasets_of("toy"),
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("toy.ingest")
    resources:
        **resources("toy.ingest"),
    shell:
        run("toy.ingest")


rule toy_smooth_open:
    input:
        config=stage_config("toy.smooth"),
        volume=store("volume"),
    output:
        opened=temp(open_record("toy.smooth")),
    log:
        result("logs/toy.smooth/open.log"),
    benchmark:
        result("benchmarks/toy.smooth/open.tsv")
    wildcard_constraints:
        dataset=datasets_of("toy"),
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("toy.smooth", "open")
    resources:
        **resources("toy.smooth", "open"),
    shell:
        run("toy.smooth", "open")


rule toy_smooth_part:
    input:
        config=stage_config("toy.smooth"),
        volume=store("volume"),
        before=records_before("toy.smooth"),
    output:
        record=temp(part_record("toy.smooth")),
    log:
        result("logs/toy.smooth/round-{round}.part-{part}.log"),
    benchmark:
        result("benchmarks/toy.smooth/round-{round}.part-{part}.tsv")
    wildcard_constraints:
        dataset=datasets_of("toy"),
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("toy.smooth", "part")
    resources:
        **resources("toy.smooth", "part"),
    shell:
        run("toy.smooth", "part")


rule toy_smooth:
    input:
        config=stage_config("toy.smooth"),
        volume=store("volume"),
        records=all_records("toy.smooth"),
    output:
        smooth=store("smooth"),
    log:
        result("logs/toy.smooth.log"),
    benchmark:
        result("benchmarks/toy.smooth.tsv")
    wildcard_constraints:
        dataset=datasets_of("toy"),
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("toy.smooth")
    resources:
        **resources("toy.smooth"),
    shell:
        run("toy.smooth")


rule toy_pick_open:
    input:
        config=stage_config("toy.pick"),
        smooth=store("smooth"),
    output:
        opened=temp(open_record("toy.pick")),
    log:
        result("logs/toy.pick/open.log"),
    benchmark:
        result("benchmarks/toy.pick/open.tsv")
    wildcard_constraints:
        dataset=datasets_of("toy"),
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("toy.pick", "open")
    resources:
        **resources("toy.pick", "open"),
    shell:
        run("toy.pick", "open")


rule toy_pick_part:
    input:
        config=stage_config("toy.pick"),
        smooth=store("smooth"),
        before=records_before("toy.pick"),
    output:
        record=temp(part_record("toy.pick")),
    log:
        result("logs/toy.pick/round-{round}.part-{part}.log"),
    benchmark:
        result("benchmarks/toy.pick/round-{round}.part-{part}.tsv")
    wildcard_constraints:
        dataset=datasets_of("toy"),
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("toy.pick", "part")
    resources:
        **resources("toy.pick", "part"),
    shell:
        run("toy.pick", "part")


rule toy_pick:
    input:
        config=stage_config("toy.pick"),
        smooth=store("smooth"),
        records=all_records("toy.pick"),
    output:
        picks=result("picks.tsv"),
        counts=result("counts.json"),
    log:
        result("logs/toy.pick.log"),
    benchmark:
        result("benchmarks/toy.pick.tsv")
    wildcard_constraints:
        dataset=datasets_of("toy"),
    conda:
        "../../envs/cpu.yaml"
    threads: threads_of("toy.pick")
    resources:
        **resources("toy.pick"),
    shell:
        run("toy.pick")
