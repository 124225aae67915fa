package render

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/Masterminds/semver/v3"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"
)

// functionMap are the functions of templates, described for their users in
// docs/configuration-repository.md. All of them are pure, and none takes long for what it is given.
// Those of text/template that make texts are replaced, so that they are bounded too.
func (r *rendering) functionMap() template.FuncMap {
	functions := template.FuncMap{
		"manifestHash": r.manifestHash,

		"print": fmt.Sprint, "println": fmt.Sprintln, "printf": printf,
		"html": template.HTMLEscaper, "js": template.JSEscaper, "urlquery": template.URLQueryEscaper,

		"split": split, "join": join, "replace": replace, "indent": indent, "nindent": nindent, "quote": quote,
		"lower": strings.ToLower, "upper": strings.ToUpper, "trim": strings.TrimSpace,
		"trimPrefix": func(prefix, text string) string { return strings.TrimPrefix(text, prefix) },
		"trimSuffix": func(suffix, text string) string { return strings.TrimSuffix(text, suffix) },
		"hasPrefix":  strings.HasPrefix, "hasSuffix": strings.HasSuffix, "contains": strings.Contains,

		"default": defaultTo, "list": listOf, "append": appendTo, "dict": dict, "keys": keys,
		"toYaml": toYAML, "yaml": toYAML, "toJson": toJSON,

		"base64": base64Encode, "base64Decode": base64Decode, "sha256": sha256Sum,
		"publicKey": publicKey, "certificateExpiry": certificateExpiry,

		"parseInt64": parseInt64, "add": add, "sub": sub, "mul": mul, "div": div, "mod": mod,
		"sumQuantities": sumQuantities, "scaleQuantity": scaleQuantity, "semverCompare": semverCompare,

		"accountID": accountID, "getAWSAccountID": accountID, "awsValidID": awsValidID,
		"azID": azID, "azCount": azCount, "asgSize": asgSize, "mountUnitName": mountUnitName,
		"splitHostPort": splitHostPort, "extractEndpointHosts": extractEndpointHosts,
		"portRanges": portRanges, "sgIngressRanges": sgIngressRanges, "nthAddressFromCIDR": nthAddressFromCIDR,
		"nodeCIDRMaxNodes": nodeCIDRMaxNodes, "nodeCIDRMaxNodesPodCIDR": nodeCIDRMaxNodesPodCIDR, "nodeCIDRMaxPods": nodeCIDRMaxPods,
	}
	for name, function := range functions {
		functions[name] = bounded(function, func() *execution { return r.current })
	}
	return functions
}

// fits refuses texts before they are made.
func fits(size int) error {
	if size > maxValue || size < 0 {
		return exceeded("makes a value of more than %d bytes", maxValue)
	}
	return nil
}

// times multiplies without an overflow: what is too much stays too much.
func times(a, b int) int {
	if a != 0 && b > maxValue/a {
		return maxValue + 1
	}
	return a * b
}

var verb = regexp.MustCompile(`%[-+# 0-9.\[\]*]*[^-+# 0-9.\[\]*]?`)

// printf is fmt's, without what would make more of its arguments than they are, or show addresses.
func printf(format string, args ...any) (string, error) {
	verbs, largest := 0, maxWidth
	for _, found := range verb.FindAllString(format, -1) {
		verbs++
		if strings.Contains(found, "*") || strings.HasSuffix(found, "p") {
			return "", fmt.Errorf("%q is not supported", found)
		}
		for _, number := range strings.FieldsFunc(found, func(c rune) bool { return c < '0' || c > '9' }) {
			if width, err := strconv.Atoi(number); err != nil || width > maxWidth {
				return "", fmt.Errorf("%q is too wide; at most %d", found, maxWidth)
			}
		}
	}
	for _, arg := range args {
		largest = max(largest, int(grow(reflect.ValueOf(arg), 0)))
	}
	if err := fits(verbs * largest / 16); err != nil { // most arguments are used once
		return "", err
	}
	return fmt.Sprintf(format, args...), nil
}

// split makes nothing of nothing, which is what a loop over the parts should see.
func split(text, separator string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, separator)
}

func join(separator string, list any) (string, error) {
	values, err := elements(list)
	if err != nil {
		return "", err
	}
	texts := make([]string, len(values))
	size := times(len(values), len(separator))
	for i, value := range values {
		texts[i] = fmt.Sprint(value)
		size += len(texts[i])
	}
	if err := fits(size); err != nil {
		return "", err
	}
	return strings.Join(texts, separator), nil
}

func replace(old, by, text string) (string, error) {
	if err := fits(len(text) + times(strings.Count(text, old), len(by))); err != nil {
		return "", err
	}
	return strings.ReplaceAll(text, old, by), nil
}

func indent(spaces int, text string) (string, error) {
	if spaces < 0 {
		return "", fmt.Errorf("cannot indent by %d", spaces)
	}
	if err := fits(len(text) + times(1+strings.Count(text, "\n"), spaces)); err != nil {
		return "", err
	}
	by := strings.Repeat(" ", spaces)
	return by + strings.ReplaceAll(text, "\n", "\n"+by), nil
}

func nindent(spaces int, text string) (string, error) {
	indented, err := indent(spaces, text)
	return "\n" + indented, err
}

func quote(value any) string { return strconv.Quote(fmt.Sprint(value)) }

func defaultTo(otherwise, value any) any {
	if truth, ok := template.IsTrue(value); ok && truth {
		return value
	}
	return otherwise
}

func listOf(values ...any) []any { return values }

func appendTo(list any, values ...any) ([]any, error) {
	before, err := elements(list)
	return append(before, values...), err
}

// elements copies a list of any kind.
func elements(list any) ([]any, error) {
	of := reflect.ValueOf(list)
	if !of.IsValid() {
		return nil, nil
	}
	if of.Kind() != reflect.Slice && of.Kind() != reflect.Array {
		return nil, fmt.Errorf("%T is no list", list)
	}
	values := make([]any, of.Len())
	for i := range values {
		values[i] = of.Index(i).Interface()
	}
	return values, nil
}

func dict(pairs ...any) (map[string]any, error) {
	if len(pairs)%2 != 0 {
		return nil, errors.New("needs a value for each key")
	}
	made := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		key, ok := pairs[i].(string)
		if !ok {
			return nil, fmt.Errorf("key %v is no text", pairs[i])
		}
		if _, twice := made[key]; twice {
			return nil, fmt.Errorf("has the key %q twice", key)
		}
		made[key] = pairs[i+1]
	}
	return made, nil
}

func keys(of any) ([]string, error) {
	value := reflect.ValueOf(of)
	if value.Kind() != reflect.Map || value.Type().Key().Kind() != reflect.String {
		return nil, fmt.Errorf("%T has no keys", of)
	}
	var names []string
	for _, key := range value.MapKeys() {
		names = append(names, key.String())
	}
	slices.Sort(names)
	return names, nil
}

func toYAML(value any) (string, error) {
	text, err := yaml.Marshal(value)
	return strings.TrimSuffix(string(text), "\n"), err
}

func toJSON(value any) (string, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(value)
	return strings.TrimSuffix(text.String(), "\n"), err
}

func base64Encode(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

func base64Decode(text string) (string, error) {
	decoded, err := base64.StdEncoding.DecodeString(text)
	return string(decoded), err
}

func sha256Sum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// pemBlock bounds what is parsed: the arithmetic of keys that nobody has takes minutes.
func pemBlock(text string) (*pem.Block, error) {
	const longest = 8 << 10
	if len(text) > longest {
		return nil, fmt.Errorf("is longer than %d bytes", longest)
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("is no PEM block")
	}
	return block, nil
}

func publicKey(private string) (string, error) {
	block, err := pemBlock(private)
	if err != nil {
		return "", fmt.Errorf("the private key %w", err)
	}
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		return "", err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})), nil
}

func certificateExpiry(certificate string) (string, error) {
	block, err := pemBlock(certificate)
	if err != nil {
		return "", fmt.Errorf("the certificate %w", err)
	}
	parsed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", err
	}
	return parsed.NotAfter.UTC().Format(time.RFC3339), nil
}

func parseInt64(text string) (int64, error) { return strconv.ParseInt(text, 10, 64) }

// integer reads numbers of any of the types that they have in an entry, in values and in templates.
func integer(value any) (int64, error) {
	switch of := reflect.ValueOf(value); {
	case of.CanInt():
		return of.Int(), nil
	case of.CanUint() && of.Uint() <= math.MaxInt64:
		return int64(of.Uint()), nil
	case of.Kind() == reflect.String:
		return parseInt64(of.String())
	}
	return 0, fmt.Errorf("%v is no whole number", value)
}

func arithmetic(a, b any, of func(a, b int64) (int64, error)) (int64, error) {
	x, err := integer(a)
	if err != nil {
		return 0, err
	}
	y, err := integer(b)
	if err != nil {
		return 0, err
	}
	return of(x, y)
}

func add(a, b any) (int64, error) {
	return arithmetic(a, b, func(a, b int64) (int64, error) { return a + b, nil })
}

func sub(a, b any) (int64, error) {
	return arithmetic(a, b, func(a, b int64) (int64, error) { return a - b, nil })
}

func mul(a, b any) (int64, error) {
	return arithmetic(a, b, func(a, b int64) (int64, error) { return a * b, nil })
}

func div(a, b any) (int64, error) {
	return arithmetic(a, b, func(a, b int64) (int64, error) {
		if b == 0 {
			return 0, fmt.Errorf("%d cannot be divided by 0", a)
		}
		return a / b, nil
	})
}

func mod(a, b any) (int64, error) {
	return arithmetic(a, b, func(a, b int64) (int64, error) {
		if b == 0 {
			return 0, fmt.Errorf("%d cannot be divided by 0", a)
		}
		return a % b, nil
	})
}

// plainQuantity leaves out the exponents that resource.ParseQuantity needs hours for.
var plainQuantity = regexp.MustCompile(`^[+-]?[0-9.]{1,30}([eE][+-]?[0-9]{1,2}|[A-Za-z]{0,2})$`)

func quantity(text string) (resource.Quantity, error) {
	if !plainQuantity.MatchString(text) {
		return resource.Quantity{}, fmt.Errorf("%q is no quantity such as 500m or 2Gi", text)
	}
	parsed, err := resource.ParseQuantity(text)
	if err != nil {
		return resource.Quantity{}, fmt.Errorf("%q: %w", text, err)
	}
	return parsed, nil
}

func sumQuantities(texts ...string) (string, error) {
	var sum resource.Quantity
	for _, text := range texts {
		summand, err := quantity(text)
		if err != nil {
			return "", err
		}
		sum.Add(summand)
	}
	return sum.String(), nil
}

// scaleQuantity rounds down: to thousandths where a quantity is that small, else to whole ones.
func scaleQuantity(text string, factor float64) (string, error) {
	scaled, err := quantity(text)
	if err != nil {
		return "", err
	}
	if factor <= 0 || math.IsInf(factor, 1) || math.IsNaN(factor) {
		return "", fmt.Errorf("the factor is %v; must be more than 0", factor)
	}
	value, set := float64(scaled.Value()), scaled.Set
	if scaled.Format == resource.DecimalSI && scaled.Value() < 1024 {
		value, set = float64(scaled.MilliValue()), scaled.SetMilli
	}
	if value *= factor; math.Abs(value) >= math.MaxInt64 {
		return "", fmt.Errorf("%q times %v is too much", text, factor)
	}
	set(int64(value))
	return scaled.String(), nil
}

func semverCompare(constraint, version string) (bool, error) {
	const longest = 200
	if len(constraint) > longest || len(version) > longest {
		return false, fmt.Errorf("versions are at most %d characters long", longest)
	}
	wanted, err := semver.NewConstraint(constraint)
	if err != nil {
		return false, err
	}
	is, err := semver.NewVersion(version)
	if err != nil {
		return false, fmt.Errorf("%q: %w", version, err)
	}
	return wanted.Check(is), nil
}

func accountID(account string) (string, error) {
	kind, id, found := strings.Cut(account, ":")
	if !found || kind == "" || id == "" || strings.Contains(id, ":") {
		return "", fmt.Errorf("%q is no account such as aws:123456789012", account)
	}
	return id, nil
}

func awsValidID(id string) string { return strings.ReplaceAll(id, ":", "__") }

// azID is the last part of a zone's name: 1a of eu-central-1a.
func azID(zone string) string { return zone[strings.LastIndex(zone, "-")+1:] }

// azCount counts zones. The key "*", where a map of subnets has one, stands for all of them.
func azCount(zones any) (int, error) {
	of := reflect.ValueOf(zones)
	switch of.Kind() {
	case reflect.Slice:
		return of.Len(), nil
	case reflect.Map:
		names, err := keys(zones)
		return len(slices.DeleteFunc(names, func(zone string) bool { return zone == "*" })), err
	}
	return 0, fmt.Errorf("%T is neither a list of zones nor a map of subnets by zone", zones)
}

func asgSize(poolSize, groups any) (int64, error) {
	return arithmetic(poolSize, groups, func(size, groups int64) (int64, error) {
		if groups <= 0 || size%groups != 0 {
			return 0, fmt.Errorf("a pool of %d nodes cannot be shared out evenly among %d groups", size, groups)
		}
		return size / groups, nil
	})
}

func mountUnitName(path string) (string, error) {
	name, absolute := strings.CutPrefix(path, "/")
	if !absolute {
		return "", fmt.Errorf("%q is no absolute path", path)
	}
	return strings.ReplaceAll(name, "/", "-"), nil
}

type hostPort struct{ Host, Port string }

func splitHostPort(address string) (hostPort, error) {
	host, port, err := net.SplitHostPort(address)
	return hostPort{host, port}, err
}

// extractEndpointHosts are the different hosts of a list of addresses or URLs, in order.
func extractEndpointHosts(endpoints string) ([]string, error) {
	hosts := map[string]bool{}
	for endpoint := range strings.SplitSeq(endpoints, ",") {
		if !strings.Contains(endpoint, "://") {
			endpoint = "https://" + endpoint
		}
		parsed, err := url.Parse(endpoint)
		if err != nil {
			return nil, err
		}
		if parsed.Hostname() == "" {
			return nil, fmt.Errorf("%q has no host", endpoint)
		}
		hosts[parsed.Hostname()] = true
	}
	return slices.Sorted(maps.Keys(hosts)), nil
}

type portRange struct{ FromPort, ToPort int }

// ports reads "80" or "8000-8100".
func ports(text string) (portRange, error) {
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	from, err := strconv.ParseUint(first, 10, 16)
	to, err2 := strconv.ParseUint(last, 10, 16)
	if err := cmp.Or(err, err2); err != nil || from > to {
		return portRange{}, fmt.Errorf("%q is no port or range of ports, such as 80 or 8000-8100", text)
	}
	return portRange{int(from), int(to)}, nil
}

func portRanges(text string) ([]portRange, error) {
	var ranges []portRange
	for _, part := range split(text, ",") {
		ports, err := ports(part)
		if err != nil {
			return nil, err
		}
		ranges = append(ranges, ports)
	}
	return ranges, nil
}

type ingressRange struct {
	CIDR             string
	FromPort, ToPort int
	Protocol         string
}

// sgIngressRanges reads a list of [protocol:]cidr:ports for the rules of a security group.
func sgIngressRanges(text string) ([]ingressRange, error) {
	var ranges []ingressRange
	for _, part := range split(text, ",") {
		network, portText, found := cutLast(part, ":")
		protocol := "tcp"
		for _, named := range []string{"tcp", "udp"} {
			if cidr, ok := strings.CutPrefix(network, named+":"); ok {
				protocol, network = named, cidr
			}
		}
		prefix, err := netip.ParsePrefix(network)
		if !found || err != nil {
			return nil, fmt.Errorf("%q is not [tcp:|udp:]<CIDR>:<port>[-<port>]", part)
		}
		ports, err := ports(portText)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", part, err)
		}
		ranges = append(ranges, ingressRange{prefix.Masked().String(), ports.FromPort, ports.ToPort, protocol})
	}
	return ranges, nil
}

func cutLast(text, separator string) (before, after string, found bool) {
	at := strings.LastIndex(text, separator)
	if at < 0 {
		return text, "", false
	}
	return text[:at], text[at+len(separator):], true
}

func nthAddressFromCIDR(cidr string, n int) (string, error) {
	prefix, err := netip.ParsePrefix(cidr)
	if err != nil {
		return "", err
	}
	const most = 1 << 16
	if n < 0 || n > most {
		return "", fmt.Errorf("address %d is not between 0 and %d", n, most)
	}
	address := prefix.Masked().Addr()
	for range n {
		address = address.Next()
	}
	if !prefix.Contains(address) {
		return "", fmt.Errorf("%s has no address %d", cidr, n)
	}
	return address.String(), nil
}

func checkNodeMask(bits int64) error {
	if bits < 24 || bits > 28 {
		return fmt.Errorf("nodes have a network of /24 to /28, not /%d", bits)
	}
	return nil
}

func nodeCIDRMaxNodes(nodeBits, reserved int64) (int64, error) {
	return nodeCIDRMaxNodesPodCIDR(16, nodeBits, reserved)
}

func nodeCIDRMaxNodesPodCIDR(podBits, nodeBits, reserved int64) (int64, error) {
	if podBits < 14 || podBits > 16 {
		return 0, fmt.Errorf("pods have a network of /14 to /16, not /%d", podBits)
	}
	if err := checkNodeMask(nodeBits); err != nil {
		return 0, err
	}
	return 1<<(nodeBits-podBits) - reserved, nil
}

// nodeCIDRMaxPods uses half of a node's addresses, so that none is given to another pod too soon, and
// no more than the 110 pods that Kubernetes is tested with.
func nodeCIDRMaxPods(nodeBits, extra int64) (int64, error) {
	if err := checkNodeMask(nodeBits); err != nil {
		return 0, err
	}
	return min(1<<(32-nodeBits-1)+extra, 110), nil
}
