package main

import (
	"encoding/json"
	"fmt"
	"sort"

	"github.com/open-policy-agent/opa/v1/ast"
)

type set map[string]bool

// phases knows in which phases each rule can hold. A rule is narrowed by the comparisons of input.phase in its own
// body and by those of the rules its body needs; a rule of no output set also by the rules that need it.
type phases struct {
	all    []string
	output set
	prefix string
	byName map[string][]*ast.Rule
	memo   map[*ast.Rule]set
	busy   map[*ast.Rule]bool
}

func newPhases(req *request, modules map[string]*ast.Module) *phases {
	p := &phases{
		all: sortedKeys(req.Schemas), output: set{}, prefix: "data.writ.pack." + req.Pack,
		byName: map[string][]*ast.Rule{}, memo: map[*ast.Rule]set{}, busy: map[*ast.Rule]bool{},
	}
	for _, name := range req.Sets {
		p.output[name] = true
	}
	for _, path := range sortedKeys(modules) {
		for _, r := range modules[path].Rules {
			p.byName[ruleName(r)] = append(p.byName[ruleName(r)], r)
		}
	}
	return p
}

func (p *phases) every() set {
	out := set{}
	for _, name := range p.all {
		out[name] = true
	}
	return out
}

func (p *phases) names(s set) []string {
	out := make([]string, 0, len(s))
	for name := range s {
		out = append(out, name)
	}
	sort.Strings(out)
	return out
}

func meet(a, b set) set {
	out := set{}
	for name := range a {
		if b[name] {
			out[name] = true
		}
	}
	return out
}

// own is where the rule, or one of its else branches, can hold.
func (p *phases) own(r *ast.Rule) set {
	if known, ok := p.memo[r]; ok {
		return known
	}
	if p.busy[r] {
		return p.every()
	}
	p.busy[r] = true
	out := set{}
	for branch := r; branch != nil; branch = branch.Else {
		for name := range p.body(branch.Body) {
			out[name] = true
		}
	}
	delete(p.busy, r)
	p.memo[r] = out
	return out
}

func (p *phases) body(body ast.Body) set {
	out := p.every()
	for _, e := range body {
		if e.Negated {
			continue
		}
		if values, isNot, ok := comparison(e); ok {
			named := set{}
			for _, v := range values {
				named[v.name] = true
			}
			for _, name := range p.all {
				if named[name] == isNot {
					delete(out, name)
				}
			}
			continue
		}
		if name := p.needs(e); name != "" {
			union := set{}
			for _, r := range p.byName[name] {
				if r.Default {
					union = p.every()
					break
				}
				for phase := range p.own(r) {
					union[phase] = true
				}
			}
			out = meet(out, union)
		}
	}
	return out
}

// needs is the local rule that an expression stands or falls with, or "".
func (p *phases) needs(e *ast.Expr) string {
	switch terms := e.Terms.(type) {
	case *ast.Term:
		return p.local(terms.Value)
	case []*ast.Term:
		if len(terms) > 0 {
			return p.local(terms[0].Value)
		}
	}
	return ""
}

func (p *phases) local(value ast.Value) string {
	name := ""
	switch v := value.(type) {
	case ast.Var:
		name = string(v)
	case ast.Call:
		if len(v) > 0 {
			return p.local(v[0].Value)
		}
	case ast.Ref:
		if head, ok := v[0].Value.(ast.Var); ok {
			name = string(head)
		}
		if name == "data" && len(v) > 4 && v[:4].String() == p.prefix {
			if s, ok := v[4].Value.(ast.String); ok {
				name = string(s)
			}
		}
	}
	if len(p.byName[name]) == 0 {
		return ""
	}
	return name
}

type constant struct {
	name     string
	location *ast.Location
}

func isPhase(t *ast.Term) bool {
	ref, ok := t.Value.(ast.Ref)
	return ok && ref.String() == "input.phase"
}

// comparison reads input.phase == "x", != "x" and in {"x", "y"}; isNot tells the second.
func comparison(e *ast.Expr) (values []constant, isNot bool, ok bool) {
	terms, isCall := e.Terms.([]*ast.Term)
	if !isCall || len(terms) != 3 {
		return nil, false, false
	}
	left, right := terms[1], terms[2]
	switch terms[0].String() {
	case "equal", "eq", "assign":
	case "neq":
		isNot = true
	case "internal.member_2":
		if !isPhase(left) {
			return nil, false, false
		}
		collect := func(t *ast.Term) { values = append(values, text(t)...) }
		switch v := right.Value.(type) {
		case ast.Set:
			v.Foreach(collect)
			return values, false, len(values) == v.Len()
		case *ast.Array:
			v.Foreach(collect)
			return values, false, len(values) == v.Len()
		}
		return nil, false, false
	default:
		return nil, false, false
	}
	if isPhase(right) {
		left, right = right, left
	}
	if !isPhase(left) {
		return nil, false, false
	}
	values = text(right)
	return values, isNot, len(values) == 1
}

func text(t *ast.Term) []constant {
	if s, ok := t.Value.(ast.String); ok {
		return []constant{{name: string(s), location: t.Location}}
	}
	return nil
}

// unknown finds comparisons of input.phase with a value it never has.
func (p *phases) unknown(r *ast.Rule) []named {
	out := []named{}
	known := p.every()
	ast.WalkExprs(r, func(e *ast.Expr) bool {
		values, _, _ := comparison(e)
		for _, v := range values {
			if !known[v.name] {
				out = append(out, named{place: at(v.location), Name: v.name})
			}
		}
		return false
	})
	return out
}

// checked narrows each rule of no output set to the phases of the rules that need it.
func (p *phases) checked() map[*ast.Rule]set {
	callers := map[string][]*ast.Rule{}
	for name, rules := range p.byName {
		for _, r := range rules {
			seen := set{}
			note := func(callee string) {
				if callee != name && !seen[callee] && len(p.byName[callee]) > 0 {
					seen[callee] = true
					callers[callee] = append(callers[callee], r)
				}
			}
			ast.WalkVars(r, func(v ast.Var) bool {
				note(string(v))
				return false
			})
			ast.WalkRefs(r, func(ref ast.Ref) bool {
				note(p.local(ref))
				return false
			})
		}
	}
	out := map[*ast.Rule]set{}
	for name, rules := range p.byName {
		for _, r := range rules {
			if p.output[name] || len(callers[name]) == 0 {
				out[r] = p.own(r)
			} else {
				out[r] = set{}
			}
		}
	}
	for changed := true; changed; {
		changed = false
		for name, rules := range p.byName {
			if p.output[name] || len(callers[name]) == 0 {
				continue
			}
			union := set{}
			for _, c := range callers[name] {
				for phase := range out[c] {
					union[phase] = true
				}
			}
			for _, r := range rules {
				next := meet(union, p.own(r))
				if len(next) != len(out[r]) {
					out[r], changed = next, true
				}
			}
		}
	}
	return out
}

// checkPhases type-checks the pack once per phase against that phase's schema and keeps what concerns rules that can
// hold there: a field that is missing or always null in a phase is an error for every rule of that phase that reads it.
func checkPhases(req *request, modules map[string]*ast.Module, capabilities *ast.Capabilities) ([]problem, error) {
	p := newPhases(req, modules)
	checked := p.checked()
	seen := map[problem]int{}
	out := []problem{}
	for _, phase := range p.all {
		var raw any
		if err := json.Unmarshal(req.Schemas[phase], &raw); err != nil {
			return nil, fmt.Errorf("schema %s: %w", phase, err)
		}
		schemas := ast.NewSchemaSet()
		schemas.Put(ast.SchemaRootRef, forOpa(raw))
		compiler := ast.NewCompiler().WithCapabilities(capabilities).WithSchemas(schemas).SetErrorLimit(errorLimit)
		compiler.Compile(modules)
		for _, found := range errorsOf(compiler.Errors) {
			r := ruleAt(modules[found.File], found.Row)
			if r != nil && !checked[r][phase] {
				continue
			}
			if _, ok := seen[found]; ok {
				continue
			}
			seen[found] = len(out)
			found.Code = "phase:" + phase
			out = append(out, found)
		}
	}
	return out, nil
}

func ruleAt(module *ast.Module, row int) *ast.Rule {
	if module == nil {
		return nil
	}
	var last *ast.Rule
	for _, r := range module.Rules {
		if r.Location.Row <= row && (last == nil || r.Location.Row >= last.Location.Row) {
			last = r
		}
	}
	return last
}

// forOpa turns a JSON Schema into what OPA's type checker reads as meant: it takes type null for "anything", and a list
// of types for its first. A property that is always null is dropped, so that reading it is an error; an object that may
// be null stays an object; any other that may be null is left open.
func forOpa(schema any) any {
	object, ok := schema.(map[string]any)
	if !ok {
		return schema
	}
	if list, ok := object["type"].([]any); ok {
		if object["properties"] == nil {
			return map[string]any{}
		}
		for _, t := range list {
			if t == "object" {
				object["type"] = "object"
			}
		}
	}
	if properties, ok := object["properties"].(map[string]any); ok {
		for name, property := range properties {
			if p, ok := property.(map[string]any); ok && p["type"] == "null" {
				delete(properties, name)
				continue
			}
			properties[name] = forOpa(property)
		}
		delete(object, "required")
	}
	if items, ok := object["items"]; ok {
		object["items"] = forOpa(items)
	}
	for _, key := range []string{"$schema", "$id"} {
		delete(object, key)
	}
	return object
}
