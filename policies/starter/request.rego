package writ.pack.starter

# Phase request: who may call what. What no rule here grants, the host refuses.

roles := {role | some role in input.subject.properties.roles}

own if {
	tenants
	input.resource.properties.owner == input.subject.id
}

tenants if input.resource.properties.tenant == input.subject.properties.tenant

known if {
	tenants
	input.resource.properties.owner != null
}

# METADATA
# title: Anybody with a role may speak the protocol
# custom: {id: STA-001}
grant contains {"rule": rego.metadata.rule()} if {
	input.phase == "request"
	count(roles) > 0
	input.resource.type == "none"
	protocol
}

protocol if {
	input.action.name in {
		"initialize", "server/discover", "ping", "logging/setLevel", "tools/list", "tools/call",
		"resources/list", "resources/templates/list", "prompts/list", "get_status",
	}
}

protocol if startswith(input.action.name, "notifications/")

# METADATA
# title: Developers and operators see the targets
# custom: {id: STA-002}
grant contains {"rule": rego.metadata.rule()} if {
	input.phase == "request"
	some role in {"developer", "operator"}
	role in roles
	input.resource.type in {"none", "target"}
	input.action.name in {"list_targets", "view"}
}

# METADATA
# title: Developers submit tasks
# custom: {id: STA-003}
grant contains {"rule": rego.metadata.rule()} if {
	input.phase == "request"
	"developer" in roles
	input.action.name == "submit_task"
	input.resource.type == "target"
}

# METADATA
# title: Developers work on their own tasks
# custom: {id: STA-004}
grant contains {"rule": rego.metadata.rule()} if {
	input.phase == "request"
	"developer" in roles
	own
	input.resource.type in {"task", "execution"}
	input.action.name in {"upload_artifact", "start_execution", "cancel_execution"}
}

# METADATA
# title: Everybody with a role reads what is their own
# custom: {id: STA-005}
grant contains {"rule": rego.metadata.rule()} if {
	input.phase == "request"
	count(roles) > 0
	own
	input.action.name in reads
}

reads := {"get_status", "get_result", "resources/read", "view"}

# METADATA
# title: Approvers see approvals and answer them
# custom: {id: STA-006}
grant contains {"rule": rego.metadata.rule()} if {
	input.phase == "request"
	"approver" in roles
	known
	input.resource.type == "approval"
	input.action.name in {"get_status", "resources/read", "view", "respond_to_approval"}
}

# METADATA
# title: Auditors read receipts and decisions of their tenant
# custom: {id: STA-007}
grant contains {"rule": rego.metadata.rule()} if {
	input.phase == "request"
	"auditor" in roles
	known
	input.resource.type in {"receipt", "execution", "approval", "task"}
	input.action.name in {"get_status", "resources/read", "view"}
}

# METADATA
# title: Operators read all work of their tenant
# custom: {id: STA-008}
grant contains {"rule": rego.metadata.rule()} if {
	input.phase == "request"
	"operator" in roles
	known
	input.action.name in reads
}
