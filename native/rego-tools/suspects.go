package main

import (
	"encoding/json"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// suspect is what a rule reads or compares that no phase it can hold in has, where OPA's type checker does not look:
// object.get, parameters of functions, and words of a field that knows only some.
type suspect struct {
	place
	// Kind is field or word.
	Kind string `json:"kind"`
	// Path is that of the field, from input on.
	Path string `json:"path"`
	// Word is what the field is compared with, and Words are those it may be.
	Word   string   `json:"word"`
	Words  []string `json:"words"`
	Phases []string `json:"phases"`
}

// path leads from input to a value; "*" stands for any element of a list.
type path []string

func (p path) String() string { return strings.Join(append(path{"input"}, p...), ".") }

// reading tells, within one rule, which variables hold which parts of the input.
type reading map[ast.Var][]path

type suspects struct {
	phases  *phases
	checked map[*ast.Rule]set
	schemas map[string]any
	// calls are those of each function of the pack, gathered once.
	calls map[string][]site
	found []suspect
}

// site is a call, and what the variables of its rule hold.
type site struct {
	terms []*ast.Term
	vars  reading
}

// mostCalls is how many calls of a function are looked at: one that is called oftener is taken for anything.
const mostCalls = 64

func findSuspects(req *request, modules map[string]*ast.Module, phases *phases) []suspect {
	s := &suspects{
		phases: phases, checked: phases.checked(), schemas: map[string]any{}, calls: map[string][]site{}, found: []suspect{},
	}
	for phase, raw := range req.Schemas {
		var schema any
		if json.Unmarshal(raw, &schema) == nil {
			s.schemas[phase] = schema
		}
	}
	for _, visit := range []func(of, branch *ast.Rule){s.gather, s.rule} {
		for _, file := range sortedKeys(modules) {
			for _, r := range modules[file].Rules {
				for branch := r; branch != nil; branch = branch.Else {
					visit(r, branch)
				}
			}
		}
	}
	return s.found
}

// eachCall meets calls that are values and those that are expressions.
func eachCall(r *ast.Rule, meet func(location *ast.Location, terms []*ast.Term)) {
	ast.WalkTerms(r, func(t *ast.Term) bool {
		if call, ok := t.Value.(ast.Call); ok {
			meet(t.Location, call)
		}
		return false
	})
	ast.WalkExprs(r, func(e *ast.Expr) bool {
		if terms, ok := e.Terms.([]*ast.Term); ok {
			meet(e.Location, terms)
		}
		return false
	})
}

func (s *suspects) gather(_, branch *ast.Rule) {
	vars := reading{}
	locals(branch, vars)
	eachCall(branch, func(_ *ast.Location, terms []*ast.Term) {
		if len(terms) == 0 {
			return
		}
		if function := s.phases.local(terms[0].Value); function != "" {
			s.calls[function] = append(s.calls[function], site{terms: terms, vars: vars})
		}
	})
}

func (s *suspects) rule(of, branch *ast.Rule) {
	vars := s.parameters(of, branch)
	locals(branch, vars)
	ast.WalkRefs(branch, func(ref ast.Ref) bool {
		// The type checker looks at what begins with input; a parameter is anything to it.
		if head, ok := ref[0].Value.(ast.Var); ok && isParameter(branch, head) {
			s.field(of, ref[0].Location, pathsOf(ref, vars))
		}
		return false
	})
	eachCall(branch, func(location *ast.Location, terms []*ast.Term) { s.call(of, location, terms, vars) })
}

func isParameter(r *ast.Rule, v ast.Var) bool {
	for _, arg := range r.Head.Args {
		if arg.Value.Compare(v) == 0 {
			return true
		}
	}
	return false
}

// parameters are what a function is called with, as far as every call says so by a path of the input.
func (s *suspects) parameters(of, branch *ast.Rule) reading {
	vars := reading{}
	for at, arg := range branch.Head.Args {
		v, ok := arg.Value.(ast.Var)
		if !ok {
			continue
		}
		if given := s.given(ruleName(of), at); len(given) > 0 {
			vars[v] = given
		}
	}
	return vars
}

func (s *suspects) given(function string, at int) []path {
	calls := s.calls[function]
	if len(calls) > mostCalls {
		return nil
	}
	given := []path{}
	for _, call := range calls {
		if len(call.terms) <= at+1 {
			return nil
		}
		paths := pathsOf(call.terms[at+1].Value, call.vars)
		if len(paths) == 0 {
			return nil
		}
		given = append(given, paths...)
	}
	return given
}

// locals follows x := input.a.b and some x in input.a.b.
func locals(r *ast.Rule, vars reading) {
	ast.WalkExprs(r, func(e *ast.Expr) bool {
		switch terms := e.Terms.(type) {
		case []*ast.Term:
			if len(terms) == 3 && terms[0].String() == "assign" {
				if v, ok := terms[1].Value.(ast.Var); ok {
					vars[v] = pathsOf(terms[2].Value, vars)
				}
			}
		case *ast.SomeDecl:
			if len(terms.Symbols) != 1 {
				return false
			}
			call, ok := terms.Symbols[0].Value.(ast.Call)
			if !ok || len(call) < 3 {
				return false
			}
			if v, ok := call[len(call)-2].Value.(ast.Var); ok {
				elements := []path{}
				for _, p := range pathsOf(call[len(call)-1].Value, vars) {
					elements = append(elements, append(append(path{}, p...), "*"))
				}
				vars[v] = elements
			}
		}
		return false
	})
}

// pathsOf are the places of the input a term can stand for; none where that is not known.
func pathsOf(value ast.Value, vars reading) []path {
	switch v := value.(type) {
	case ast.Var:
		if v.Equal(ast.InputRootDocument.Value) {
			return []path{{}}
		}
		return vars[v]
	case ast.Ref:
		var rest path
		for _, part := range v[1:] {
			if name, ok := part.Value.(ast.String); ok {
				rest = append(rest, string(name))
			} else {
				rest = append(rest, "*")
			}
		}
		out := []path{}
		for _, p := range pathsOf(v[0].Value, vars) {
			out = append(out, append(append(path{}, p...), rest...))
		}
		return out
	}
	return nil
}

func (s *suspects) call(of *ast.Rule, location *ast.Location, terms []*ast.Term, vars reading) {
	if len(terms) < 3 {
		return
	}
	switch terms[0].String() {
	case "object.get":
		keys, ok := keysOf(terms[2].Value)
		if !ok {
			return
		}
		paths := []path{}
		for _, p := range pathsOf(terms[1].Value, vars) {
			paths = append(paths, append(append(path{}, p...), keys...))
		}
		s.field(of, location, paths)
	case "equal", "eq", "neq":
		left, right := terms[1], terms[2]
		if _, ok := left.Value.(ast.String); ok {
			left, right = right, left
		}
		s.word(of, pathsOf(left.Value, vars), right)
	case "internal.member_2":
		each := func(t *ast.Term) { s.word(of, pathsOf(terms[1].Value, vars), t) }
		switch v := terms[2].Value.(type) {
		case ast.Set:
			v.Foreach(each)
		case *ast.Array:
			v.Foreach(each)
		}
	}
}

func keysOf(value ast.Value) (path, bool) {
	switch v := value.(type) {
	case ast.String:
		return path{string(v)}, true
	case *ast.Array:
		keys := path{}
		for i := range v.Len() {
			key, ok := v.Elem(i).Value.(ast.String)
			if !ok {
				return nil, false
			}
			keys = append(keys, string(key))
		}
		return keys, true
	}
	return nil, false
}

// field reports a path that is in no phase the rule can hold in.
func (s *suspects) field(of *ast.Rule, location *ast.Location, paths []path) {
	if len(paths) == 0 || len(s.checked[of]) == 0 {
		return
	}
	for _, p := range paths {
		for phase := range s.checked[of] {
			if _, there := lookUp(s.schemas[phase], p); there {
				return
			}
		}
	}
	s.add(suspect{place: at(location), Kind: "field", Path: paths[0].String(), Words: []string{}, Phases: s.phases.names(s.checked[of])})
}

// word reports a text that a field has in no phase the rule can hold in. What input.phase may be is checked elsewhere.
func (s *suspects) word(of *ast.Rule, paths []path, t *ast.Term) {
	text, ok := t.Value.(ast.String)
	if !ok || len(paths) == 0 {
		return
	}
	words := set{}
	for _, p := range paths {
		if p.String() == "input.phase" {
			return
		}
		for phase := range s.checked[of] {
			node, there := lookUp(s.schemas[phase], p)
			if !there {
				continue
			}
			known, limited := wordsOf(node)
			if !limited {
				return
			}
			for _, word := range known {
				words[word] = true
			}
		}
	}
	if len(words) == 0 || words[string(text)] {
		return
	}
	s.add(suspect{
		place: at(t.Location), Kind: "word", Path: paths[0].String(), Word: string(text),
		Words: s.phases.names(words), Phases: s.phases.names(s.checked[of]),
	})
}

func (s *suspects) add(one suspect) {
	if len(s.found) >= errorLimit {
		return
	}
	for _, known := range s.found {
		if known.place == one.place && known.Path == one.Path && known.Word == one.Word {
			return
		}
	}
	s.found = append(s.found, one)
}

// lookUp is the schema at a path, nil where anything may be there; false where nothing ever is, or only null.
func lookUp(schema any, p path) (any, bool) {
	node, ok := schema.(map[string]any)
	if !ok {
		return nil, true
	}
	if node["type"] == "null" {
		return nil, false
	}
	if len(p) == 0 {
		return node, true
	}
	properties, hasProperties := node["properties"].(map[string]any)
	if child, known := properties[p[0]]; known {
		return lookUp(child, p[1:])
	}
	if items, ok := node["items"]; ok {
		return lookUp(items, p[1:])
	}
	more, said := node["additionalProperties"]
	if p[0] == "*" || (!hasProperties && node["type"] == "object" && !said) {
		return nil, true
	}
	if more == nil || more == false {
		return nil, false
	}
	return lookUp(more, p[1:])
}

// wordsOf are the texts a field can have, where its schema names them all.
func wordsOf(node any) (words []string, limited bool) {
	schema, ok := node.(map[string]any)
	if !ok {
		return nil, false
	}
	list, ok := schema["enum"].([]any)
	if constant, is := schema["const"]; is {
		list, ok = []any{constant}, true
	}
	for _, one := range list {
		if text, isText := one.(string); isText {
			words = append(words, text)
		}
	}
	return words, ok
}
