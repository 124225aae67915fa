package registry

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Hash is the SHA-1, in hexadecimal digits, of the entry without its status: the same on any
// machine, for any way to write the entry down that means the same. A lifecycle status that Fairway
// itself moves on counts as what it becomes, so that a version does not change when provisioning or
// decommissioning is done.
func (c Cluster) Hash() string {
	c.Status = nil
	c.NodePools = slices.Clone(c.NodePools)
	c.setDefaults()
	switch c.LifecycleStatus {
	case Requested:
		c.LifecycleStatus = Ready
	case DecommissionRequested:
		c.LifecycleStatus = Decommissioned
	}
	sum := sha1.Sum(canonical(c)) // an identity as git has them, no protection
	return hex.EncodeToString(sum[:])
}

// canonical is JSON with sorted keys, without spaces, and without what is empty. A cluster consists
// of texts, whole numbers, lists and maps of texts: nothing of that fails to be encoded.
func canonical(c Cluster) []byte {
	encoded, err := json.Marshal(c)
	if err != nil {
		panic(fmt.Sprintf("encoding cluster %s: %v", c.ID, err))
	}
	decoder := json.NewDecoder(bytes.NewReader(encoded))
	decoder.UseNumber()
	var sorted map[string]any
	if err := decoder.Decode(&sorted); err != nil {
		panic(fmt.Sprintf("decoding cluster %s: %v", c.ID, err))
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(withoutEmpty(sorted)); err != nil { // maps are written in the order of their keys
		panic(fmt.Sprintf("encoding cluster %s: %v", c.ID, err))
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}

// withoutEmpty leaves out fields without a value. Config items stay although they are empty: a
// template can tell an item that is there from one that is not.
func withoutEmpty(object map[string]any) map[string]any {
	for key, value := range object {
		switch v := value.(type) {
		case nil:
			delete(object, key)
		case string:
			if v == "" {
				delete(object, key)
			}
		case []any:
			if len(v) == 0 {
				delete(object, key)
			}
			for _, each := range v {
				if inner, ok := each.(map[string]any); ok {
					withoutEmpty(inner)
				}
			}
		case map[string]any: // config_items
			if len(v) == 0 {
				delete(object, key)
			}
		}
	}
	return object
}

// Version is the version of a cluster that is built from a commit of the configuration repository
// as its registry entry says.
func Version(commit string, c Cluster) string { return commit + "#" + c.Hash() }

var versionForm = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})#[0-9a-f]{40}$`)

// ParseVersion takes a version apart.
func ParseVersion(version string) (commit, hash string, err error) {
	if !versionForm.MatchString(version) {
		return "", "", fmt.Errorf("version %.120q is no full commit id and 40 hexadecimal digits with a # between them", version)
	}
	commit, hash, _ = strings.Cut(version, "#")
	return commit, hash, nil
}
