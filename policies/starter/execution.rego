package writ.pack.starter

# Phase execution: what may run. Phase approval: whose verdict counts. Phase egress: what a run may call.

# METADATA
# title: Developers run what an isolate or a container can hold
# custom: {id: STA-020}
grant contains {"rule": rego.metadata.rule()} if {
	input.phase == "execution"
	"developer" in roles
	input.context.plan.executor in {"isolate", "docker"}
}

# METADATA
# title: Production waits for an approver
# custom:
#   id: STA-021
#   code: approval_required
#   remedy: Tell your user that another person, with the role approver, has to say yes; the run starts by itself once approved.
require_approval contains {
	"rule": rego.metadata.rule(),
	"stages": [{"id": "approver", "roles": ["approver"], "min": 1}],
	"exclude": ["agent"],
	"evidence": ["key", "passkey"],
	"request_ttl_s": 86400,
	"execute_within_s": 3600,
	"message": $"{input.context.task.intent} on {input.resource.id} with {count(input.context.plan.credentials)} credentials",
} if {
	input.phase == "execution"
	lower(input.resource.properties.labels.env) in {"prod", "production"}
}

# METADATA
# title: The credentials a plan names may be used by the gateway
# custom: {id: STA-022}
credential contains {"rule": rego.metadata.rule(), "name": credential.name, "lane": "placeholder"} if {
	input.phase == "execution"
	some credential in input.context.plan.credentials
	credential.lane == "placeholder"
}

# METADATA
# title: Approvers give verdicts
# custom: {id: STA-030}
grant contains {"rule": rego.metadata.rule()} if {
	input.phase == "approval"
	tenants
	some role in {"approver", input.context.verdict.stage}
	role in roles
}

# METADATA
# title: A run calls the services of its plan
# custom: {id: STA-040}
grant contains {"rule": rego.metadata.rule()} if {
	input.phase == "egress"
	input.context.call.service in input.context.plan.services
	usable(input.context.call.credential)
}

usable(null)

usable(name) if {
	some credential in input.context.plan.credentials
	credential.lane == "placeholder"
	credential.name == name
}
