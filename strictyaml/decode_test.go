package strictyaml_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/strictyaml"
)

type document struct {
	Name   string            `yaml:"name" validate:"required"`
	Link   string            `yaml:"link" validate:"omitempty,http_url"`
	Listen string            `yaml:"listen" validate:"omitempty,hostname_port"`
	Size   int               `yaml:"size" validate:"gte=0,lte=9"`
	Limit  int               `yaml:"limit"`
	Share  float32           `yaml:"share" validate:"omitempty,gt=0"`
	On     bool              `yaml:"on"`
	Wait   time.Duration     `yaml:"wait"`
	Since  time.Time         `yaml:"since"`
	Kind   string            `yaml:"kind" validate:"omitempty,oneof=round square"`
	Email  string            `yaml:"email" validate:"omitempty,email"`
	Items  map[string]string `yaml:"items"`
	Parts  []part            `yaml:"parts" validate:"omitempty,min=1,dive"`
	Last   *part             `yaml:"last"`
	Hidden string            `yaml:"-"`
}

type part struct {
	Name string   `yaml:"name" validate:"required"`
	Tags []string `yaml:"tags"`
}

// Check implements strictyaml.Checker.
func (d *document) Check(report func(field, format string, args ...any)) {
	if d.Limit < d.Size {
		report("limit", "is %d; must be at least size, which is %d", d.Limit, d.Size)
	}
}

func TestEveryKindOfValueIsRead(t *testing.T) {
	var d document
	require.NoError(t, strictyaml.Decode("f.yaml", []byte(`---
name: |
  Anna
link: https://example.org
size: 3
limit: 1_000
share: 0.5
on: true
wait: 1h30m
since: 2026-12-24T18:00:00+01:00
kind: round
items: {number: 5, "yes": true, quoted: "1.10", date: 2026-03-01, none: }
parts:
- &first {name: one, tags: [a, b]}
- *first
- <<: *first
  name: three
last:
  name: "last"
`), &d))
	one := part{Name: "one", Tags: []string{"a", "b"}}
	require.Equal(t, document{
		Name: "Anna\n", Link: "https://example.org", Size: 3, Limit: 1000, Share: 0.5, On: true, Wait: 90 * time.Minute, Since: time.Date(2026, 12, 24, 18, 0, 0, 0, time.FixedZone("", 3600)), Kind: "round",
		Items: map[string]string{"number": "5", "yes": "true", "quoted": "1.10", "date": "2026-03-01", "none": ""},
		Parts: []part{one, one, {Name: "three", Tags: []string{"a", "b"}}},
		Last:  &part{Name: "last"},
	}, d)
}

func TestWhatIsLeftOutKeepsItsDefault(t *testing.T) {
	want := document{Name: "default", Wait: time.Second, Size: 2, Limit: 2, Last: &part{Name: "default"}}
	for name, content := range map[string]string{
		"value": "name:\nwait: ~\nsize: null\n", "key": "on: false\n", "everything": "", "content": "# nothing\n---\n", "null": "~\n",
	} {
		t.Run(name, func(t *testing.T) {
			d := want
			require.NoError(t, strictyaml.Decode("f.yaml", []byte(content), &d))
			require.Equal(t, want, d)
		})
	}
}

func TestAnEmptyDocumentBesidesTheOneDoesNotCount(t *testing.T) {
	var d document
	require.NoError(t, strictyaml.Decode("f.yaml", []byte("---\nname: a\n---\n# nothing\n"), &d))
	require.Equal(t, document{Name: "a"}, d)
}

func TestWhatIsWrongIsRefusedWithFileLineAndField(t *testing.T) {
	const duration = "; must be a duration in hours, minutes and seconds, such as 72h, 1h30m or 500ms"
	const moment = "; must be a time with its offset, such as 2026-12-24T18:00:00+01:00 or 2026-12-24T17:00:00Z"
	const keys = "is no known key; there are email, items, kind, last, limit, link, listen, name, on, parts, share, since, size, wait"
	for name, test := range map[string]struct{ content, want string }{
		"unknown key":                  {"name: a\nnane: b", "f.yaml:2: nane: " + keys},
		"unknown key with keys":        {"name: a\nnane:\n  b: c", "f.yaml:2: nane: " + keys},
		"unknown key further down":     {"parts:\n- name: a\n  tag: b", "f.yaml:3: parts[0].tag: is no known key; there are name, tags"},
		"key of a field without one":   {"name: a\nHidden: b", "f.yaml:2: Hidden: " + keys},
		"key in the wrong case":        {"Name: a", "f.yaml:1: Name: " + keys},
		"duplicate key":                {"name: a\nname: b", `f.yaml:2: mapping key "name" already defined at [1:1]`},
		"duplicate key in a line":      {"items: {a: b, a: c}", `f.yaml:1: mapping key "a" already defined at [1:9]`},
		"unknown key that is merged":   {"last:\n  <<: {nane: a}", "f.yaml:2: unknown field \"nane\""},
		"key that is a list":           {"[a]: b", "f.yaml:1: found an invalid key for this map"},
		"text for a number":            {"name: a\nsize: three", `f.yaml:2: size: is "three"; must be a whole number`},
		"quoted number":                {"size: '3'", `f.yaml:1: size: is "3"; must be a whole number`},
		"fraction for a whole number":  {"size: 3.5", "f.yaml:1: size: is 3.5; must be a whole number"},
		"number beyond all bounds":     {"size: 99999999999999999999", `f.yaml:1: size: is "99999999999999999999"; must be a whole number`},
		"list for a number":            {"size:\n- 3", "f.yaml:2: size: is a list; must be a whole number"},
		"text for a share":             {"share: half", `f.yaml:1: share: is "half"; must be a number`},
		"text for a truth value":       {"on: yes", `f.yaml:1: on: is "yes"; must be true or false`},
		"days":                         {"wait: 3 days", `f.yaml:1: wait: is "3 days"` + duration},
		"days as a unit":               {"wait: 3d", `f.yaml:1: wait: is "3d"` + duration},
		"number for a duration":        {"wait: 30", "f.yaml:1: wait: is 30" + duration},
		"nothing for a duration":       {`wait: ""`, `f.yaml:1: wait: is ""` + duration},
		"day for a time":               {"since: 2026-12-24", `f.yaml:1: since: is "2026-12-24"` + moment},
		"time without an offset":       {"since: 2026-12-24T18:00:00", `f.yaml:1: since: is "2026-12-24T18:00:00"` + moment},
		"time that is none":            {"since: 2026-02-30T18:00:00Z", `f.yaml:1: since: is "2026-02-30T18:00:00Z"` + moment},
		"number for a time":            {"since: 5", "f.yaml:1: since: is 5" + moment},
		"list for a text":              {"name: [a]", "f.yaml:1: name: is a list; must be text"},
		"keys for a text":              {"name:\n  a: b", "f.yaml:2: name: has keys of its own; must be text"},
		"text for a list":              {"parts: a", `f.yaml:1: parts: is "a"; must be a list`},
		"text in a list of objects":    {"parts: [a]", `f.yaml:1: parts[0]: is "a"; must be keys with values`},
		"number for an object":         {"last: 5", "f.yaml:1: last: is 5; must be keys with values"},
		"text for a map":               {"items: a", `f.yaml:1: items: is "a"; must be keys with values`},
		"list in a map":                {"items:\n  a: [b]", "f.yaml:2: items.a: is a list; must be text"},
		"text that is read as another": {"items:\n  version: 1.10", "f.yaml:2: items.version: is 1.10, which is not text but means 1.1; put it in quotes"},
		"text that is read as octal":   {"items:\n  account: 0123", "f.yaml:2: items.account: is 0123, which is not text but means 83; put it in quotes"},
		"wrong type behind an anchor":  {"size: &a x", `f.yaml:1: size: is "x"; must be a whole number`},
		"wrong type behind a tag":      {"size: !!str x", `f.yaml:1: size: is "x"; must be a whole number`},
		"wrong type behind an alias":   {"name: &a x\nsize: *a", "f.yaml:1: cannot unmarshal string into Go struct field document.Size of type int"},
		"alias of nothing":             {"name: *a", `f.yaml:1: could not find alias "a"`},
		"list at the top":              {"- name: a", "f.yaml:1: is a list; must be keys with values"},
		"text at the top":              {"name", `f.yaml:1: is "name"; must be keys with values`},
		"two documents":                {"name: a\n---\nname: b", "f.yaml: holds 2 YAML documents; exactly one is expected"},
		"no YAML":                      {"name: [", "f.yaml:1: sequence end token ']' not found"},
		"tab":                          {"last:\n\tname: a", "f.yaml:2: found character '\t' that cannot start any token"},
		"too much":                     {"name: " + strings.Repeat("a", strictyaml.MaxSize), "f.yaml: is 16777222 bytes long; at most 16777216 are read"},

		"missing field":               {"size: 0", "f.yaml: name: is missing"},
		"empty file":                  {"", "f.yaml: name: is missing"},
		"file of comments":            {"# name: a\n", "f.yaml: name: is missing"},
		"missing field further down":  {"name: a\nparts:\n- name: b\n- tags: [c]", "f.yaml:4: parts[1].name: is missing"},
		"less than the least":         {"name: a\nsize: -1\nlimit: 0", "f.yaml:2: size: is -1; must be at least 0"},
		"more than the most":          {"name: a\nlimit: 10\nsize: 10", "f.yaml:3: size: is 10; must be at most 9"},
		"not more than":               {"name: a\nshare: -0.5", "f.yaml:2: share: is -0.5; must be more than 0"},
		"none of the choices":         {"name: a\nkind: oval", `f.yaml:2: kind: is "oval"; must be one of round, square`},
		"no URL":                      {"name: a\nlink: example", `f.yaml:2: link: is "example"; must be a URL such as https://example.org`},
		"no address":                  {"name: a\nlisten: localhost", `f.yaml:2: listen: is "localhost"; must be an address such as 127.0.0.1:9464`},
		"a rule without words of own": {"name: a\nemail: b", `f.yaml:2: email: is b, which breaks the rule "email"`},
		"what the document checks":    {"name: a\nsize: 3\nlimit: 2", "f.yaml:3: limit: is 2; must be at least size, which is 3"},
	} {
		t.Run(name, func(t *testing.T) {
			require.EqualError(t, strictyaml.Decode("f.yaml", []byte(test.content), &document{}), test.want)
		})
	}
}

func TestWhatWouldTakeTheParserMinutesIsRefused(t *testing.T) {
	const million = 1_000_000
	for name, content := range map[string]string{
		"braces":            strings.Repeat("{a: ", million),
		"braces that close": strings.Repeat("{a: ", million) + strings.Repeat("}", million),
		"brackets":          "items: " + strings.Repeat("[", million),
		"braces in entries": "parts:\n- " + strings.Repeat("{a: [", million),
		"entries":           strings.Repeat("- ", million) + "x",
		"closed too often":  "a: ]" + strings.Repeat("{a: ", million),
		"documents":         strings.Repeat("---\n", million),
		"ended documents":   strings.Repeat("...\n", million),
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			require.Error(t, strictyaml.Decode("f.yaml", []byte(content), new(document)))
			require.Less(t, time.Since(start), 10*time.Second)
		})
	}
	err := strictyaml.Decode("f.yaml", []byte("name: a\nlast: "+strings.Repeat("[", 101)), new(document))
	require.EqualError(t, err, "f.yaml:2: is nested more than 100 deep")
	require.NoError(t, strictyaml.Decode("f.yaml", []byte("name: a\nlink:\nparts:\n"+strings.Repeat("- {name: \"[[{\"}\n", 1000)), new(document)), "entries of one list are not nested")
}

func TestEverythingThatIsWrongIsToldAtOnce(t *testing.T) {
	err := strictyaml.Decode("f.yaml", []byte("size: x\non: 1\nparts:\n- nane: a\n"), &document{})
	require.EqualError(t, err, `f.yaml:1: size: is "x"; must be a whole number
f.yaml:2: on: is 1; must be true or false
f.yaml:4: parts[0].nane: is no known key; there are name, tags`)

	err = strictyaml.Decode("f.yaml", []byte("size: 5\nkind: oval\nlimit: 4\n"), &document{})
	require.EqualError(t, err, `f.yaml: name: is missing
f.yaml:2: kind: is "oval"; must be one of round, square
f.yaml:3: limit: is 4; must be at least size, which is 5`)
}

func TestAProblemCanBeTakenApart(t *testing.T) {
	var problem strictyaml.Problem
	require.ErrorAs(t, strictyaml.Decode("f.yaml", []byte("name: a\nsize: -1\n"), &document{}), &problem)
	require.Equal(t, strictyaml.Problem{File: "f.yaml", Line: 2, Field: "size", Text: "is -1; must be at least 0"}, problem)
}

func FuzzDecode(f *testing.F) {
	for _, content := range []string{
		"name: a\nparts: [{name: b, tags: [c]}]\n", "last: &a {name: b}\nparts: [*a, <<: *a]\n", "items: {? a : b}\n", "name: |\n  a\n", "- [", "a: !!x {}",
	} {
		f.Add([]byte(content))
	}
	f.Fuzz(func(_ *testing.T, content []byte) {
		_ = strictyaml.Decode("f.yaml", content, &document{}) // it answers, whatever it is given
	})
}

func TestANumberNeedsNoPointBeforeItsExponent(t *testing.T) {
	for text, want := range map[string]float32{"1e-05": 0.00001, "2E3": 2000, "-1.5e+2": -150, "1e-05 # a note": 0.00001} {
		var out struct {
			Share float32 `yaml:"share"`
		}
		require.NoError(t, strictyaml.Decode("f.yaml", []byte("share: "+text+"\n"), &out), text)
		require.Equal(t, want, out.Share, text)
	}
	for _, text := range []string{`"1e-05"`, "1e", "e5", "1e999", "1e5x"} {
		var out struct {
			Share float64 `yaml:"share"`
		}
		require.ErrorContains(t, strictyaml.Decode("f.yaml", []byte("share: "+text+"\n"), &out), "f.yaml:1: share: is ", text)
	}
	var kept struct {
		Name string `yaml:"name"`
	}
	require.NoError(t, strictyaml.Decode("f.yaml", []byte("name: 1e5\n"), &kept))
	require.Equal(t, "1e5", kept.Name)
}
