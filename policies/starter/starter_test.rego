package writ.pack.starter_test

import data.writ.pack.starter

subject(id, roles) := {
	"type": "user",
	"id": id,
	"properties": {
		"tenant": "default",
		"roles": roles,
		"auth": {"method": "socket", "age_s": 0},
		"agent": {"id": "agent", "asserted": {"client": "", "version": ""}},
	},
}

request(roles, action, resource) := {
	"schema": "writ.input/v1",
	"phase": "request",
	"subject": subject("alice", roles),
	"action": {"name": action, "properties": {"arguments": {}}},
	"resource": resource,
	"context": {"task": null, "plan": null, "approvals": [], "verdict": null, "call": null, "truncated": []},
}

thing(type, owner) := {
	"type": type,
	"id": "some_id",
	"properties": {"owner": owner, "tenant": "default", "labels": {}},
}

none := {"type": "none", "id": "", "properties": {"owner": null, "tenant": null, "labels": {}}}

new_target := {"type": "target", "id": "unheard-of", "properties": {"owner": null, "tenant": null, "labels": {}}}

plan := {
	"executor": "isolate",
	"isolation": "process",
	"egress": "gateway",
	"code_origin": "caller",
	"services": ["api"],
	"credentials": [{"name": "token", "lane": "placeholder", "exposure": "none"}],
}

running(phase, roles, changes) := {
	"schema": "writ.input/v1",
	"phase": phase,
	"subject": subject("alice", roles),
	"action": {"name": "start_execution", "properties": {"arguments": {}}},
	"resource": object.union(thing("target", null), {"properties": object.get(changes, "properties", {})}),
	"context": {
		"task": {"intent": "run_script"},
		"plan": object.union(plan, object.get(changes, "plan", {})),
		"verdict": object.get(changes, "verdict", null),
		"call": object.get(changes, "call", null),
		"truncated": [],
	},
}

granted(value) := ids if {
	found := starter.grant with input as value
	ids := {element.rule.custom.id | some element in found}
}

protocol := {
	"initialize", "server/discover", "ping", "tools/list", "tools/call", "resources/list", "get_status",
	"notifications/initialized", "notifications/cancelled",
}

test_protocol_is_for_anybody_with_a_role if {
	every action in protocol {
		every role in {"developer", "approver", "auditor", "operator", "security-oncall"} {
			granted(request([role], action, none)) == {"STA-001"}
		}
		granted(request([], action, none)) == set()
	}
}

test_unknown_methods_are_nobodys if {
	every action in {"subscriptions/listen", "resources/subscribe", "sampling/createMessage", "", "notifications"} {
		granted(request(["developer", "approver", "auditor", "operator"], action, none)) == set()
	}
}

test_no_role_gets_nothing if {
	every action in {"list_targets", "submit_task", "view", "get_status", "respond_to_approval"} {
		every type in {"none", "target", "task", "execution", "approval", "artifact", "receipt"} {
			granted(request([], action, thing(type, "alice"))) == set()
		}
	}
}

test_targets_are_for_developers_and_operators if {
	granted(request(["developer"], "list_targets", none)) == {"STA-002"}
	granted(request(["operator"], "view", thing("target", null))) == {"STA-002"}
	granted(request(["auditor"], "list_targets", none)) == set()
	granted(request(["approver"], "view", thing("target", null))) == set()
}

test_developers_submit_even_to_unknown_targets if {
	granted(request(["developer"], "submit_task", thing("target", null))) == {"STA-003"}
	granted(request(["developer"], "submit_task", new_target)) == {"STA-003"}
	every role in {"approver", "auditor", "operator"} {
		granted(request([role], "submit_task", thing("target", null))) == set()
	}
}

test_developers_work_on_their_own if {
	every action in {"upload_artifact", "start_execution"} {
		granted(request(["developer"], action, thing("task", "alice"))) == {"STA-004"}
		granted(request(["developer"], action, thing("task", "bob"))) == set()
		granted(request(["developer"], action, thing("task", null))) == set()
		granted(request(["operator"], action, thing("task", "alice"))) == set()
	}
	granted(request(["developer"], "cancel_execution", thing("execution", "alice"))) == {"STA-004"}
	granted(request(["developer", "operator"], "cancel_execution", thing("execution", "bob"))) == set()
}

test_own_work_is_read if {
	every type in {"task", "execution", "approval", "artifact", "receipt"} {
		every action in {"get_status", "get_result", "resources/read", "view"} {
			granted(request(["developer"], action, thing(type, "alice"))) == {"STA-005"}
			granted(request(["developer"], action, thing(type, "bob"))) == set()
			granted(request(["developer"], action, thing(type, null))) == set()
		}
	}
}

test_approvers_answer_approvals if {
	every action in {"get_status", "view", "respond_to_approval"} {
		granted(request(["approver"], action, thing("approval", "bob"))) == {"STA-006"}
	}
	granted(request(["developer"], "respond_to_approval", thing("approval", "bob"))) == set()
	granted(request(["developer"], "respond_to_approval", thing("approval", "alice"))) == set()
	granted(request(["approver"], "get_result", thing("execution", "bob"))) == set()
	granted(request(["approver"], "respond_to_approval", thing("approval", null))) == set()
}

test_auditors_read_what_was_decided if {
	every type in {"receipt", "execution", "approval", "task"} {
		granted(request(["auditor"], "get_status", thing(type, "bob"))) == {"STA-007"}
	}
	granted(request(["auditor"], "resources/read", thing("artifact", "bob"))) == set()
	granted(request(["auditor"], "start_execution", thing("task", "bob"))) == set()
}

test_operators_read_everything_of_the_tenant if {
	granted(request(["operator"], "get_result", thing("execution", "bob"))) == {"STA-008"}
	elsewhere := object.union(thing("execution", "bob"), {"properties": {"tenant": "other"}})
	granted(request(["operator"], "get_result", elsewhere)) == set()
}

test_developers_run_isolates_and_containers if {
	granted(running("execution", ["developer"], {})) == {"STA-020"}
	granted(running("execution", ["developer"], {"plan": {"executor": "docker", "isolation": "container"}})) == {"STA-020"}
	granted(running("execution", ["operator"], {"plan": {"executor": "docker", "isolation": "vm"}})) == set()
	granted(running("execution", ["operator"], {})) == set()
	granted(running("execution", ["developer"], {"plan": {"executor": "ssh"}})) == set()
}

test_production_asks_an_approver if {
	every env in {"production", "PROD"} {
		found := starter.require_approval with input as running("execution", ["developer"], {"properties": {"labels": {"env": env}}})
		{element.message | some element in found} == {"run_script on some_id with 1 credentials"}
	}
	free := starter.require_approval with input as running("execution", ["developer"], {"properties": {"labels": {"env": "staging"}}})
	count(free) == 0
	bare := starter.require_approval with input as running("execution", ["developer"], {})
	count(bare) == 0
}

test_credentials_in_the_placeholder_lane_are_named if {
	mixed := {"plan": {"credentials": [
		{"name": "token", "lane": "placeholder", "exposure": "none"},
		{"name": "dsn", "lane": "exposed", "exposure": "workload"},
	]}}
	found := starter.credential with input as running("execution", ["developer"], mixed)
	{element.name | some element in found} == {"token"}
}

test_approvers_give_verdicts if {
	granted(running("approval", ["approver"], {"verdict": verdict("approver")})) == {"STA-030"}
	granted(running("approval", ["security"], {"verdict": verdict("security")})) == {"STA-030"}
	granted(running("approval", ["developer", "operator"], {"verdict": verdict("approver")})) == set()
	granted(running("approval", ["approver"], {"verdict": verdict("approver"), "properties": {"tenant": "other"}})) == set()
}

test_calls_go_to_services_of_the_plan if {
	granted(running("egress", ["developer"], call("api", "token"))) == {"STA-040"}
	granted(running("egress", ["developer"], call("api", null))) == {"STA-040"}
	granted(running("egress", ["developer"], call("other", null))) == set()
	granted(running("egress", ["developer"], call("api", "another"))) == set()
	exposed := {"plan": {"credentials": [{"name": "token", "lane": "exposed", "exposure": "none"}]}}
	granted(running("egress", ["developer"], object.union(exposed, call("api", "token")))) == set()
}

verdict(stage) := {"approval_id": "a", "stage": stage, "verdict": "approve", "evidence": "key", "requirement": "r"}

call(service, credential) := {"call": {"service": service, "credential": credential}}

test_requests_are_granted_in_their_phase_only if {
	every one in {
		request(["developer"], "initialize", none),
		request(["developer"], "list_targets", none),
		request(["developer"], "submit_task", thing("target", null)),
		request(["developer"], "start_execution", thing("task", "alice")),
		request(["auditor"], "view", thing("artifact", "alice")),
		request(["approver"], "respond_to_approval", thing("approval", "bob")),
		request(["auditor"], "get_status", thing("receipt", "bob")),
		request(["operator"], "get_result", thing("execution", "bob")),
	} {
		count(granted(one)) == 1
		granted(object.union(one, {"phase": "execution"})) == set()
		granted(object.union(one, {"phase": "egress"})) == set()
	}
}

test_each_action_belongs_to_its_resource if {
	every action in {"submit_task", "upload_artifact", "start_execution", "cancel_execution", "respond_to_approval"} {
		every type in {"none", "approval", "artifact", "receipt", "service"} {
			granted(request(["developer"], action, thing(type, "alice"))) == set()
		}
	}
	granted(request(["developer"], "submit_task", thing("task", "alice"))) == set()
	granted(request(["developer"], "start_execution", thing("target", null))) == set()
	granted(request(["approver"], "respond_to_approval", thing("task", "bob"))) == set()
	granted(request(["approver"], "cancel_execution", thing("approval", "bob"))) == set()
}

test_another_tenants_things_are_not_ones_own if {
	elsewhere := object.union(thing("task", "alice"), {"properties": {"tenant": "other"}})
	every action in {"get_status", "start_execution"} {
		granted(request(["developer"], action, elsewhere)) == set()
	}
}

test_unknown_things_are_nobodys if {
	every type in {"task", "execution", "approval", "artifact", "receipt"} {
		every action in {"get_status", "get_result", "resources/read", "view", "respond_to_approval"} {
			granted(request(["approver", "auditor", "operator"], action, thing(type, null))) == set()
		}
	}
}
