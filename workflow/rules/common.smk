"""What the rules of every chain share; the functions behind the names stand in gigascope.workflow."""

from gigascope import workflow as gigascope_workflow

gigascope_workflow.prepare(on_cluster=workflow.resource_settings.nodes is not None)
flow = gigascope_workflow.load(config)
result, store, optional, figure = flow.result, flow.store, flow.optional, flow.figure
stage_config, threads_of, resources, run = (
    flow.stage_config,
    flow.threads,
    flow.resources,
    flow.run,
)

for note in flow.notes:
    logger.info(note)


wildcard_constraints:
    dataset="[A-Za-z0-9][A-Za-z0-9_.-]*",


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
