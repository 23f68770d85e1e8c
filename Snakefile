from snakemake.utils import min_version

min_version("9.20")


configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/tomography.smk"
include: "workflow/rules/compression.smk"
include: "workflow/rules/topography.smk"
include: "workflow/rules/synthesis.smk"


report: "workflow/report/workflow.rst"


rule all:
    input:
        flow.targets(workflow.rules),


onstart:
    flow.require_writable()
    flow.require_queue(on_cluster)


onsuccess:
    print("\n".join(flow.summary()))


onerror:
    flow.explain_failure(log)
