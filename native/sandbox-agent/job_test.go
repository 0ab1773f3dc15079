//go:build linux && (amd64 || arm64)

package main

import (
	"encoding/json"
	"strings"
	"testing"
)

const good = `{"protocol":"writ-frame/1","env":{"PATH":"/bin","A":""},"steps":[{"argv":["a","é"]},{"argv":["b"]}],"stdin":"x\u0000y","egress":true,"limits":{"cpu_s":1,"wall_s":2,"artifact_bytes":3,"artifact_files":4}}`

func TestAJobIsRead(t *testing.T) {
	got, err := parseJob([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if got.path != "/bin" || len(got.environment) != 2 || got.steps[0].argv[1] != "é" || len(got.steps) != 2 || *got.stdin != "x\x00y" || !got.egress || got.limits != (limits{1, 2, 3, 4}) {
		t.Errorf("%+v", got)
	}
}

func TestAJobThatIsNotExactlyOneIsRefused(t *testing.T) {
	for name, change := range map[string][2]string{
		"not UTF-8":                       {`"a"`, "\"\xff\""},
		"another protocol":                {"frame/1", "frame/2"},
		"a member more":                   {`"egress":true`, `"egress":true,"user":0`},
		"a member twice":                  {`"egress":true`, `"egress":true,"egress":false`},
		"a member less":                   {`"egress":true,`, ``},
		"a name in other letters":         {`"egress"`, `"Egress"`},
		"a name in the environment twice": {`"A":""`, `"PATH":""`},
		"a name with =":                   {`"A"`, `"A=B"`},
		"no name":                         {`"A"`, `""`},
		"a NUL in a value":                {`"/bin"`, `"/bin\u0000"`},
		"a NUL in an argument":            {`"b"`, `"b\u0000"`},
		"no program":                      {`["b"]`, `[]`},
		"an empty program":                {`["b"]`, `[""]`},
		"an argument that is no text":     {`["b"]`, `["b",1]`},
		"a step with more":                {`{"argv":["b"]}`, `{"argv":["b"],"cwd":"/"}`},
		"input that is no text":           {`"x\u0000y"`, `7`},
		"egress that is no truth":         {`true`, `"true"`},
		"a fraction":                      {`"cpu_s":1`, `"cpu_s":1.5`},
		"an exponent":                     {`"cpu_s":1`, `"cpu_s":1e3`},
		"no time":                         {`"cpu_s":1`, `"cpu_s":0`},
		"too much time":                   {`"wall_s":2`, `"wall_s":86401`},
		"a negative number":               {`"artifact_files":4`, `"artifact_files":-1`},
		"a number beyond all":             {`"artifact_bytes":3`, `"artifact_bytes":99999999999999999999`},
		"something behind":                {`4}}`, `4}} 1`},
		"nothing at the end":              {`4}}`, `4}`},
		"an array":                        {good, `[]`},
		"null":                            {good, `null`},
	} {
		input := strings.Replace(good, change[0], change[1], 1)
		if input == good {
			t.Fatalf("%s: nothing changed", name)
		}
		if _, err := parseJob([]byte(input)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// Whatever is taken is JSON that the standard reader reads the same way, with a program in each step and no NUL anywhere.
func FuzzParseJob(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(`{"protocol":"writ-frame/1","env":{},"steps":[],"stdin":null,"egress":false,"limits":{"cpu_s":1,"wall_s":1,"artifact_bytes":0,"artifact_files":0}}`))
	f.Add([]byte(`{"env":{"a":"\ud800"}}`))
	f.Fuzz(func(t *testing.T, input []byte) {
		got, err := parseJob(input)
		if err != nil {
			return
		}
		var same struct {
			Env   map[string]string `json:"env"`
			Steps []struct {
				Argv []string `json:"argv"`
			} `json:"steps"`
		}
		if err := json.Unmarshal(input, &same); err != nil || len(same.Env) != len(got.environment) || len(same.Steps) != len(got.steps) {
			t.Fatalf("read differently: %v", err)
		}
		for index, one := range got.steps {
			if len(one.argv) == 0 || strings.Join(one.argv, "\x01") != strings.Join(same.Steps[index].Argv, "\x01") || strings.Contains(strings.Join(one.argv, ""), "\x00") {
				t.Fatalf("%q", one.argv)
			}
		}
	})
}
