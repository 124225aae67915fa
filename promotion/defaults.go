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
			if !use.may(key) {
				continue
			}
			if use.file == areaDefaults { // what is made from it is among the keys
				named = true
				continue
			}
			named = named || use.names(key)
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

// use is how a file uses config items.
type use struct {
	file string
	// makes are, in config-defaults.yaml, the items whose default it is, or that stand under its condition.
	makes []string
	// keys are the items that it names, prefixes what the names of others begin with that it makes up.
	keys     map[string]bool
	prefixes []string
}

// names says whether an item is named, if only by how it begins.
func (u use) names(key string) bool {
	return u.keys[key] || slices.ContainsFunc(u.prefixes, func(p string) bool { return p != "" && strings.HasPrefix(key, p) })
}

// may says whether an item may be used, named or not.
func (u use) may(key string) bool { return u.names(key) || slices.Contains(u.prefixes, "") }

// uses reads all templates before and after.
func (a *assessment) uses() ([]use, error) {
	var uses []use
	add := func(text string, u use) {
		if u.keys, u.prefixes = itemsIn(text); len(u.keys)+len(u.prefixes) > 0 {
			uses = append(uses, u)
		}
	}
	for _, tree := range a.trees {
		err := fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			data, err := fs.ReadFile(tree, name)
			if err != nil {
				return err
			}
			if name != areaDefaults {
				add(string(data), use{file: name})
				return nil
			}
			parsed := parseItems(string(data))
			items := slices.Sorted(maps.Keys(parsed.items))
			for _, item := range items {
				add(parsed.items[item], use{file: name, makes: []string{item}})
			}
			// What belongs to no item, such as a variable, may concern all.
			add(strings.Join(parsed.rest, "\n"), use{file: name, makes: items})
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return uses, nil
}

// follow adds the items whose defaults are made from others that change.
func follow(keys []string, uses []use) []string {
	all, known := slices.Clone(keys), map[string]bool{}
	for _, key := range keys {
		known[key] = true
	}
	for i := 0; i < len(all); i++ {
		for _, use := range uses {
			if len(use.makes) == 0 || !use.may(all[i]) {
				continue
			}
			for _, item := range use.makes {
				if !known[item] {
					known[item] = true
					all = append(all, item)
				}
			}
		}
	}
	slices.Sort(all)
	return all
}

var (
	itemName   = regexp.MustCompile("^(?:\\.([A-Za-z_][A-Za-z0-9_]*)|\\s+\"([^\"\\\\\n]+)\"|\\s+`([^`\n]+)`)")
	itemPrefix = regexp.MustCompile(`^\s+\(\s*printf?\s+"([^"\\\n%]+)`)
)

// itemsIn finds the config items that a template names: .ConfigItems.key, index .ConfigItems "key", and
// index .ConfigItems (print "prefix" ...). The empty prefix stands for whatever else it does with
// them, such as to range over all.
func itemsIn(text string) (keys map[string]bool, prefixes []string) {
	const items = "ConfigItems"
	keys = map[string]bool{}
	for {
		at := strings.Index(text, items)
		if at < 0 {
			slices.Sort(prefixes)
			if prefixes = slices.Compact(prefixes); len(prefixes) > mostPrefixes {
				prefixes = []string{""}
			}
			return keys, prefixes
		}
		text = text[at+len(items):]
		if parts := itemName.FindStringSubmatch(text); parts != nil {
			keys[parts[1]+parts[2]+parts[3]] = true
		} else if parts := itemPrefix.FindStringSubmatch(text); parts != nil {
			prefixes = append(prefixes, parts[1])
		} else {
			prefixes = append(prefixes, "")
		}
	}
}

// Bounds of what is taken apart, since a branch may hold anything. Real fleets have some hundreds of items.
const (
	mostItems    = 2000
	mostPrefixes = 20
	mostDepth    = 20
	mostDefaults = 4 << 20 // bytes, of values with their conditions
)

// defaultItems is config-defaults.yaml taken apart: each item with its value and with the conditions that
// it is under, and the lines that belong to none.
type defaultItems struct {
	items map[string]string
	rest  []string
	ok    bool // it is within the bounds
}

var (
	itemLine = regexp.MustCompile(`^["']?([A-Za-z0-9_][A-Za-z0-9_./-]*)["']?\s*:(?:\s|$)`)
	action   = regexp.MustCompile(`(?s)\{\{-?.*?-?\}\}`)
	keyword  = regexp.MustCompile(`^\{\{-?\s*(if|range|with|block|define|else|end)\b`)
	onlyText = regexp.MustCompile(`^\s*(#.*|---)?\s*$`)
)

func parseItems(text string) defaultItems {
	lines := map[string][]string{}
	var conditions, rest []string
	current, size := "", 0
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if size += len(line); size > mostDefaults || len(lines) > mostItems || len(conditions) > mostDepth {
			return defaultItems{}
		}
		if parts := itemLine.FindStringSubmatch(line); parts != nil {
			current = parts[1]
			condition := strings.Join(conditions, "\x00")
			size += len(condition)
			lines[current] = append(lines[current], condition, line)
			continue
		}
		outside := line // of conditions
		for _, each := range action.FindAllString(line, -1) {
			parts := keyword.FindStringSubmatch(each)
			if parts == nil {
				continue
			}
			outside = strings.Replace(outside, each, "", 1)
			switch last := len(conditions) - 1; {
			case parts[1] == "end":
				conditions = conditions[:max(0, last)]
			case parts[1] != "else":
				conditions = append(conditions, each)
			case last >= 0:
				size += len(conditions[last])
				conditions[last] += each
			}
		}
		switch indented := strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t"); {
		case indented && current != "": // of a value of several lines
			lines[current] = append(lines[current], line)
		case !onlyText.MatchString(outside):
			current = ""
			rest = append(rest, line)
		}
	}
	d := defaultItems{items: map[string]string{}, rest: rest, ok: true}
	for item, all := range lines {
		d.items[item] = strings.Join(all, "\n")
	}
	return d
}

// changedItems are the items that differ in value or conditions, sorted; false if something else does too,
// or if that cannot be told.
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
	return slices.Sorted(maps.Keys(changed)), b.ok && a.ok && slices.Equal(b.rest, a.rest)
}
