package config_test

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/config"
)

// settings lists the fields of a section as they are written in fairway.yaml, such as roll.surge. What
// an environment, a channel or an item of a list sets has fields of its own and is not gone into.
func settings(section reflect.Type, prefix string) (out []string) {
	for i := range section.NumField() {
		field := section.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		kind := field.Type
		if kind.Kind() == reflect.Pointer {
			kind = kind.Elem()
		}
		switch {
		case options == "inline":
			out = append(out, settings(kind, prefix)...)
		case kind.Kind() == reflect.Struct && kind != reflect.TypeFor[time.Time]():
			out = append(out, settings(kind, prefix+name+".")...)
		default:
			out = append(out, prefix+name)
		}
	}
	return out
}

func TestTheExampleHasEverySectionAndIsValid(t *testing.T) {
	t.Setenv("KUBECONFIG", "")
	path := filepath.Join("..", "deploy", "fairway.yaml")
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	_, err = config.Parse(path, content)
	require.NoError(t, err)
	var example map[string]any
	require.NoError(t, yaml.Unmarshal(content, &example))
	for _, setting := range settings(reflect.TypeFor[config.Config](), "") {
		section, _, _ := strings.Cut(setting, ".")
		require.Contains(t, example, section)
	}
}

func TestEverySettingIsDocumented(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join("..", "docs", "*.md"))
	require.NoError(t, err)
	code := regexp.MustCompile("`[^`]+`")
	var documented []string // of the first column of tables: `roll.surge`, or `notify.url_env`, `url_file`
	for _, page := range pages {
		content, err := os.ReadFile(page)
		require.NoError(t, err)
		for line := range strings.Lines(string(content)) {
			cells := strings.Split(line, "|")
			if len(cells) < 3 {
				continue
			}
			section := ""
			for _, name := range code.FindAllString(cells[1], -1) {
				name = strings.Trim(name, "`")
				if at := strings.LastIndex(name, "."); at >= 0 {
					section = name[:at+1]
				} else {
					name = section + name
				}
				documented = append(documented, name)
			}
		}
	}
	for _, setting := range settings(reflect.TypeFor[config.Config](), "") {
		found := slices.Contains(documented, setting) || slices.ContainsFunc(documented, func(name string) bool {
			return strings.HasPrefix(name, setting+".<name>.") // of each environment or channel
		})
		require.True(t, found, "no table of docs/ has %s", setting)
	}
}
