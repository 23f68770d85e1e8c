"""What the rules of every chain share; the functions behind the names stand in gigascope.workflow."""

from gigascope import workflow as gigascope_workflow

on_cluster = workflow.resource_settings.nodes is not None
gigascope_workflow.prepare(on_cluster)
flow = gigascope_workflow.load(config)
result, store, optional, figure = flow.result, flow.store, flow.optional, flow.figure
datasets_of = flow.datasets_of
stage_config, threads_of, resources, run = (
    flow.stage_config,
    flow.threads,
    flow.resources,
    flow.run,
)
open_record, part_record, records_before, all_records = (
    flow.records.opened,
    flow.records.part,
    flow.records.before,
    flow.records.all,
)
flow.require_shared(first=workflow.is_main_process)
flow.records.forget_lost_work(first=workflow.is_main_process)

for note in flow.notes:
    logger.info(note)


wildcard_constraints:
    dataset="[A-Za-z0-9][A-Za-z0-9_.-]*",
    stage="[a-z]+[.][a-z_]+",
    round="[0-9]+",
    part="[0-9]+",


# A job that waits in a queue runs with what stands in this file, whatever happens to the YAML and the code meanwhile.
rule stage_config:
    output:
        stage_config("{stage}"),
    log:
        result("logs/config.{stage}.log"),
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    params:
        plan=flow.plan,
    shell:
        "printf '%s\\n' {params.plan:q} > {output:q} 2> {log:q}"


# Between two rounds of a scattered stage. A part that waited for each part of the round before would make the graph grow
# with the square of their number.
rule scatter_round:
    input:
        flow.records.of_round,
    output:
        temp(flow.records.round("{stage}")),
    log:
        result("logs/{stage}/round-{round}.log"),
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    shell:
        "cat {input:q} 2> {log:q} | sha256sum > {output:q}"
