package writ.pack.org

# What any run has to keep to, whatever the packs of a team say.

production if lower(input.resource.properties.labels.env) in {"prod", "production"}

# METADATA
# title: Production waits for an approver
# custom:
#   id: ORG-010
#   code: approval_required
#   remedy: Tell your user that another person, with the role approver, has to say yes; the run starts by itself once approved.
require_approval contains {
	"rule": rego.metadata.rule(),
	"stages": [{"id": "approver", "roles": ["approver"], "min": 1}],
	"exclude": ["agent", "subject"],
	"evidence": ["key", "passkey"],
	"request_ttl_s": 86400,
	"execute_within_s": 3600,
	"message": $"{input.context.plan.executor} on {input.resource.id}, which is labelled production",
} if {
	input.phase == "execution"
	production
}

# METADATA
# title: Every run is isolated at least as a process
# custom:
#   id: ORG-020
#   remedy: Choose a target from list_targets whose runs are isolated.
sandbox contains {"rule": rego.metadata.rule(), "isolation": "process"} if input.phase == "execution"

# METADATA
# title: Code of callers has no open egress
# custom:
#   id: ORG-021
#   code: open_egress
#   remedy: Choose a target whose runs reach services by name through the gateway.
deny contains {"rule": rego.metadata.rule()} if {
	input.phase in {"execution", "egress"}
	input.context.plan.code_origin != "operator"
	not input.context.plan.egress in {"closed", "gateway"}
}

# METADATA
# title: Code of callers never sees a secret
# custom:
#   id: ORG-022
#   code: secret_exposed
#   remedy: Choose a target that keeps its credentials at the gateway; your code needs only the placeholder.
deny contains {"rule": rego.metadata.rule()} if {
	input.phase in {"execution", "egress"}
	input.context.plan.code_origin != "operator"
	some credential in input.context.plan.credentials
	exposed(credential)
}

exposed(credential) if credential.lane != "placeholder"

exposed(credential) if credential.exposure != "none"
