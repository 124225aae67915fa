package promotion

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"
)

func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// defaults says what the change of config-defaults.yaml may do: the worst that a template may do that
// names one of the items that have changed.
func (a *assessment) defaults(shown string) (Class, string) {
	before, known := read(a.trees[0], areaDefaults)
	after, knownToo := read(a.trees[1], areaDefaults)
	if !known || !knownToo {
		return NodesRoll, shown + " could not be read, so that nodes may roll."
	}
	keys, all := changedItems(before, after)
	if !all {
		return NodesRoll, shown + " changes outside of its items, so that nodes may roll."
	}
	if len(keys) == 0 {
		return ManifestsOnly, shown + " changes no item."
	}
	uses, err := a.uses()
	if err != nil {
		return NodesRoll, shown + " changes, and the templates could not be read, so that nodes may roll."
	}
	keys = follow(keys, uses)
	worst, why := ManifestsOnly, fmt.Sprintf("%s changes %s, which manifests of applications use.", shown, printable(keys[0]))
	for _, key := range keys {
		named := false
		for _, use := range uses {
			if use.file == areaDefaults {
				named = named || len(use.within[key]) > 0 // which are among the keys
				continue
			}
			if !use.dynamic && !slices.Contains(use.keys, key) {
				continue
			}
			named = named || !use.dynamic
			_, class, _ := a.assess(a.inRepository(use.file))
			if class.rank() > worst.rank() {
				worst, why = class, fmt.Sprintf("%s changes %s, which %s uses.", shown, printable(key), printable(use.file))
			}
		}
		if !named && !worst.AtLeast(NodesRoll) {
			worst, why = NodesRoll, fmt.Sprintf("%s changes %s, which no template names, so that nodes may roll.", shown, printable(key))
		}
	}
	return worst, why
}

func (a *assessment) inRepository(inside string) string {
	if a.folder == "." {
		return inside
	}
	return a.folder + "/" + inside
}

// use is how a template uses config items.
type use struct {
	file    string
	keys    []string            // that it names
	dynamic bool                // also those whose names it makes up
	within  map[string][]string // of config-defaults.yaml: the items whose defaults use a key
}

// uses reads all templates before and after.
func (a *assessment) uses() ([]use, error) {
	var uses []use
	for _, tree := range a.trees {
		err := fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			data, err := fs.ReadFile(tree, name)
			if err != nil {
				return err
			}
			text := string(data)
			u := use{file: name}
			u.keys, u.dynamic = itemsIn(text)
			if name == areaDefaults {
				u.within = within(text)
			}
			if len(u.keys) > 0 || u.dynamic {
				uses = append(uses, u)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return uses, nil
}

// within says for each item which others have defaults that are made from it, or stand under a condition
// that asks for it. A line that belongs to no item, such as that of a variable, may concern all.
func within(text string) map[string][]string {
	parsed := parseItems(text)
	made := map[string][]string{}
	add := func(text string, items ...string) {
		used, dynamic := itemsIn(text)
		if dynamic {
			used = append(used, anyItem)
		}
		for _, key := range used {
			made[key] = append(made[key], items...)
		}
	}
	for _, item := range slices.Sorted(maps.Keys(parsed.items)) {
		add(parsed.items[item], item)
	}
	add(strings.Join(parsed.rest, "\n"), slices.Sorted(maps.Keys(parsed.items))...)
	return made
}

// anyItem stands for an item whose name a template makes up.
const anyItem = "*"

// follow adds the items whose defaults are made from others that change.
func follow(keys []string, uses []use) []string {
	all := slices.Clone(keys)
	for i := 0; i < len(all); i++ {
		for _, use := range uses {
			for _, name := range []string{all[i], anyItem} {
				for _, item := range use.within[name] {
					if !slices.Contains(all, item) {
						all = append(all, item)
					}
				}
			}
		}
	}
	slices.Sort(all)
	return all
}

var itemName = regexp.MustCompile("^(?:\\.([A-Za-z_][A-Za-z0-9_]*)|\\s+\"([^\"\\n]+)\"|\\s+`([^`\\n]+)`)")

// itemsIn finds the config items that a template names: .ConfigItems.key and index .ConfigItems "key".
// dynamic means that it also does something else with them, such as to range over all.
func itemsIn(text string) (keys []string, dynamic bool) {
	const items = "ConfigItems"
	for {
		at := strings.Index(text, items)
		if at < 0 {
			return keys, dynamic
		}
		text = text[at+len(items):]
		parts := itemName.FindStringSubmatch(text)
		if parts == nil {
			dynamic = true
			continue
		}
		if key := parts[1] + parts[2] + parts[3]; !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
}

// defaultItems is config-defaults.yaml taken apart: each item with its value and with the conditions that
// it is under, and the lines that belong to none.
type defaultItems struct {
	items map[string]string
	rest  []string
}

var (
	itemLine = regexp.MustCompile(`^["']?([A-Za-z0-9_][A-Za-z0-9_./-]*)["']?\s*:(?:\s|$)`)
	action   = regexp.MustCompile(`(?s)\{\{-?.*?-?\}\}`)
	keyword  = regexp.MustCompile(`^\{\{-?\s*(if|range|with|block|define|else|end)\b`)
	onlyText = regexp.MustCompile(`^\s*(#.*|---)?\s*$`)
)

func parseItems(text string) defaultItems {
	d := defaultItems{items: map[string]string{}}
	var conditions []string
	current := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if parts := itemLine.FindStringSubmatch(line); parts != nil {
			current = parts[1]
			d.items[current] += strings.Join(conditions, "\x00") + "\x00" + line + "\n"
			continue
		}
		indented := strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t")
		outside := line // of template actions
		for _, each := range action.FindAllString(line, -1) {
			parts := keyword.FindStringSubmatch(each)
			if parts == nil {
				continue
			}
			outside = strings.Replace(outside, each, "", 1)
			switch parts[1] {
			case "end":
				conditions = conditions[:max(0, len(conditions)-1)]
			case "else":
				if last := len(conditions) - 1; last >= 0 {
					conditions = append(slices.Clone(conditions[:last]), conditions[last]+each)
				}
			default:
				conditions = append(slices.Clone(conditions), each)
			}
		}
		switch {
		case indented && current != "": // of a value of several lines
			d.items[current] += line + "\n"
		case !onlyText.MatchString(outside):
			current = ""
			d.rest = append(d.rest, line)
		}
	}
	return d
}

// changedItems are the items that differ in value or conditions, sorted; false if something else does too.
func changedItems(before, after string) ([]string, bool) {
	b, a := parseItems(before), parseItems(after)
	changed := map[string]bool{}
	for _, pair := range [][2]defaultItems{{b, a}, {a, b}} {
		for key, value := range pair[0].items {
			if other, found := pair[1].items[key]; !found || other != value {
				changed[key] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(changed)), slices.Equal(b.rest, a.rest)
}
