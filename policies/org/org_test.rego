package writ.pack.org_test

import data.writ.pack.org

# Inputs of the four phases, complete as the host makes them; tests change single fields.

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

thing(type, owner, tenant) := {
	"type": type,
	"id": "some_id",
	"properties": {"owner": owner, "tenant": tenant, "labels": {}},
}

plan := {
	"executor": "isolate",
	"isolation": "process",
	"egress": "gateway",
	"code_origin": "caller",
	"services": ["api"],
	"credentials": [{"name": "token", "lane": "placeholder", "exposure": "none"}],
}

execution(labels, changes) := {
	"schema": "writ.input/v1",
	"phase": "execution",
	"subject": subject("alice", ["developer"]),
	"action": {"name": "start_execution", "properties": {"arguments": {}}},
	"resource": {"type": "target", "id": "some-target", "properties": {"owner": null, "tenant": "default", "labels": labels}},
	"context": {
		"task": {"intent": "run_script"},
		"plan": object.union(plan, changes),
		"verdict": null,
		"call": null,
		"truncated": [],
	},
}

denied(value) := ids if {
	found := org.deny with input as value
	ids := {element.rule.custom.id | some element in found}
}

owned := {"task", "execution", "approval", "artifact", "receipt"}

reads := {"get_status", "get_result", "resources/read", "view"}

test_own_work_is_reachable if {
	every type in owned {
		denied(request(["developer"], "get_status", thing(type, "alice", "default"))) == set()
	}
}

test_work_of_another_is_not if {
	every type in owned {
		every action in reads {
			denied(request(["developer"], action, thing(type, "bob", "default"))) == {"ORG-001"}
		}
	}
}

test_unknown_and_foreign_are_refused_alike if {
	unknown := org.deny with input as request(["developer"], "get_status", thing("execution", null, null))
	foreign := org.deny with input as request(["developer"], "get_status", thing("execution", "bob", "default"))
	elsewhere := org.deny with input as request(["developer"], "get_status", thing("execution", "alice", "other"))
	count(unknown) == 1
	unknown == foreign
	unknown == elsewhere
}

test_unknown_is_refused_to_every_role if {
	every role in {"developer", "approver", "auditor", "operator"} {
		every type in owned {
			denied(request([role], "get_status", thing(type, null, null))) == {"ORG-001"}
		}
	}
}

test_auditor_and_operator_read if {
	every role in {"auditor", "operator"} {
		every type in owned {
			every action in reads {
				denied(request([role], action, thing(type, "bob", "default"))) == set()
			}
		}
	}
}

test_auditor_and_operator_change_nothing if {
	every role in {"auditor", "operator"} {
		every action in {"upload_artifact", "start_execution", "cancel_execution", "respond_to_approval"} {
			every type in owned {
				denied(request([role], action, thing(type, "bob", "default"))) == {"ORG-001"}
			}
		}
	}
}

test_auditor_of_another_tenant_reads_nothing if {
	denied(request(["auditor"], "get_status", thing("receipt", "bob", "other"))) == {"ORG-001"}
}

test_approver_sees_and_answers_approvals_only if {
	every action in reads | {"respond_to_approval"} {
		denied(request(["approver"], action, thing("approval", "bob", "default"))) == set()
	}
	every type in {"task", "execution", "artifact", "receipt"} {
		denied(request(["approver"], "get_status", thing(type, "bob", "default"))) == {"ORG-001"}
	}
	denied(request(["approver"], "cancel_execution", thing("approval", "bob", "default"))) == {"ORG-001"}
}

test_nothing_is_said_where_there_is_no_resource if {
	denied(request([], "initialize", thing("none", null, null))) == set()
}

test_target_of_another_tenant if {
	denied(request(["developer"], "view", thing("target", null, "other"))) == {"ORG-002"}
	denied(request(["developer"], "view", thing("target", null, "default"))) == set()
	denied(request(["developer"], "view", thing("target", null, null))) == set()
}

test_verdict_stays_in_its_tenant if {
	base := request(["approver"], "respond_to_approval", thing("approval", "bob", "default"))
	denied(object.union(base, {"phase": "approval"})) == set()
	elsewhere := request(["approver"], "respond_to_approval", thing("approval", "bob", "other"))
	denied(object.union(elsewhere, {"phase": "approval"})) == {"ORG-003"}
	unknown := request(["approver"], "respond_to_approval", thing("approval", null, null))
	denied(object.union(unknown, {"phase": "approval"})) == {"ORG-003"}
}

test_production_needs_four_eyes_and_real_evidence if {
	every env in {"production", "Production", "prod"} {
		found := org.require_approval with input as execution({"env": env}, {})
		count(found) == 1
		some one in found
		one.exclude == ["agent", "subject"]
		one.evidence == ["key", "passkey"]
		one.stages == [{"id": "approver", "roles": ["approver"], "min": 1}]
	}
}

test_staging_needs_no_approval if {
	found := org.require_approval with input as execution({"env": "staging"}, {})
	count(found) == 0
}

test_every_run_is_isolated if {
	found := org.sandbox with input as execution({}, {"code_origin": "operator"})
	{element.isolation | some element in found} == {"process"}
}

test_open_egress_is_for_code_of_the_operator if {
	denied(execution({}, {"egress": "open"})) == {"ORG-021"}
	denied(execution({}, {"egress": "open", "code_origin": "operator"})) == set()
	denied(execution({}, {"egress": "closed"})) == set()
	denied(execution({}, {})) == set()
}

test_secrets_are_not_exposed_to_code_of_callers if {
	lane := [{"name": "token", "lane": "exposed", "exposure": "none"}]
	seen := [{"name": "token", "lane": "placeholder", "exposure": "workload"}]
	denied(execution({}, {"credentials": lane})) == {"ORG-022"}
	denied(execution({}, {"credentials": seen})) == {"ORG-022"}
	denied(execution({}, {"credentials": seen, "code_origin": "operator"})) == set()
}

test_one_exposed_among_many_is_enough if {
	mixed := [
		{"name": "a", "lane": "placeholder", "exposure": "none"},
		{"name": "b", "lane": "exposed", "exposure": "none"},
	]
	denied(execution({}, {"credentials": mixed})) == {"ORG-022"}
}

test_calls_are_held_to_the_same if {
	call := object.union(execution({}, {"egress": "open"}), {"phase": "egress"})
	denied(call) == {"ORG-021"}
}

test_without_an_owner_is_unknown_in_the_own_tenant_too if {
	every role in {"developer", "approver", "auditor", "operator"} {
		every type in owned {
			denied(request([role], "get_status", thing(type, null, "default"))) == {"ORG-001"}
		}
	}
}

test_what_is_not_shown_whole_is_refused if {
	every part in {"arguments", "task.files"} {
		cut := {"context": {"truncated": [part]}}
		denied(object.union(request(["developer"], "submit_task", thing("target", null, "default")), cut)) == {"ORG-004"}
		denied(object.union(execution({}, {}), cut)) == {"ORG-004"}
		denied(object.union(execution({}, {}), object.union(cut, {"phase": "egress"}))) == {"ORG-004"}
	}
}

test_what_does_not_say_that_it_is_whole_is_refused if {
	base := execution({}, {})
	silent := object.union(object.remove(base, ["context"]), {"context": object.remove(base.context, ["truncated"])})
	denied(silent) == {"ORG-004"}
}
