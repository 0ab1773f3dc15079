package writ.pack.org

# Who may touch what. Unknown and foreign things are refused by one rule, so that the answer does not tell them apart.

# METADATA
# title: Callers see and change their own work only
# custom:
#   id: ORG-001
#   code: not_found
#   remedy: Use an id that get_status lists for you; work of others is not shown.
deny contains {"rule": rego.metadata.rule()} if {
	input.phase == "request"
	input.resource.type in {"task", "execution", "approval", "artifact", "receipt"}
	not reachable
}

# METADATA
# title: Nothing of another tenant is used
# custom:
#   id: ORG-002
#   code: other_tenant
#   remedy: Use what list_targets shows you; it belongs to your own tenant.
deny contains {"rule": rego.metadata.rule()} if {
	input.resource.type in {"target", "service"}
	not input.resource.properties.tenant in {null, input.subject.properties.tenant}
}

# METADATA
# title: A verdict counts inside the tenant of the approval only
# custom:
#   id: ORG-003
#   code: not_found
#   remedy: Use an approval that get_status lists as waiting for you.
deny contains {"rule": rego.metadata.rule()} if {
	input.phase == "approval"
	not same_tenant
}

same_tenant if input.resource.properties.tenant == input.subject.properties.tenant

reads := {"get_status", "get_result", "resources/read", "view"}

reachable if {
	same_tenant
	input.resource.properties.owner == input.subject.id
}

reachable if {
	known
	input.action.name in reads
	some role in {"auditor", "operator"}
	role in input.subject.properties.roles
}

reachable if {
	known
	input.resource.type == "approval"
	input.action.name in (reads | {"respond_to_approval"})
	"approver" in input.subject.properties.roles
}

known if {
	same_tenant
	input.resource.properties.owner != null
}
