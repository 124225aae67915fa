package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// maxBody bounds what a request may carry, in bytes. A cluster with 450 config items has 40 KB.
const maxBody = 1 << 20

// object is the JSON object of a request, by its fields.
type object map[string]json.RawMessage

// readObject reads the body of a request. Nothing of it has been looked at yet but its fields' names.
func readObject(w http.ResponseWriter, r *http.Request) (object, error) {
	if kind := r.Header.Get("Content-Type"); kind != "" {
		media, _, err := mime.ParseMediaType(kind)
		// A merge patch would keep the config items that it does not name; here a field replaces all of them.
		if err != nil || media != "application/json" {
			return nil, failed(http.StatusUnsupportedMediaType, "the body is of type %.100q; must be application/json", kind)
		}
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, failed(http.StatusRequestEntityTooLarge, "the body is longer than %d bytes", maxBody)
	case err != nil:
		return nil, failed(http.StatusBadRequest, "the body could not be read")
	}
	var o object
	if err := json.Unmarshal(data, &o); err != nil {
		return nil, failed(http.StatusBadRequest, "the body is no JSON object: %v", err)
	}
	if o == nil {
		return nil, failed(http.StatusBadRequest, "the body is null; must be a JSON object")
	}
	return o, nil
}

// into decodes fields into what each of them is for. A field replaces all that was there; one that is
// not known, or null, is refused. Letter case counts.
func (o object) into(fields map[string]any) error {
	for _, name := range slices.Sorted(maps.Keys(o)) {
		target, known := fields[name]
		if !known {
			return failed(http.StatusBadRequest, "%.100q is no known field; there are %s", name, strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
		}
		var value any
		if err := json.Unmarshal(o[name], &value); err != nil {
			return failed(http.StatusBadRequest, "%s: %v", name, err)
		}
		// Clients that report a status write null where they know nothing.
		if at, found := nullIn(value); found && (name != "status" || at == "") {
			return failed(http.StatusBadRequest, "%s%.200s: is null; give it a value or leave it out", name, at)
		}
		decoder := json.NewDecoder(bytes.NewReader(o[name]))
		decoder.DisallowUnknownFields()
		err := decoder.Decode(target)
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			field := strings.TrimSuffix(name+"."+wrong.Field, ".")
			return failed(http.StatusBadRequest, "%s: is a %.100s; must be of type %s", field, wrong.Value, wrong.Type)
		}
		if err != nil {
			return failed(http.StatusBadRequest, "%s: %v", name, err)
		}
	}
	return nil
}

// nullIn says where there is a null, which would count as an empty text or as zero.
func nullIn(value any) (at string, found bool) {
	switch v := value.(type) {
	case nil:
		return "", true
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if at, found := nullIn(v[key]); found {
				return "." + key + at, true
			}
		}
	case []any:
		for i, inner := range v {
			if at, found := nullIn(inner); found {
				return "[" + strconv.Itoa(i) + "]" + at, true
			}
		}
	}
	return "", false
}

// other returns the first field that is not among the given ones.
func (o object) other(than ...string) (string, bool) {
	for _, name := range slices.Sorted(maps.Keys(o)) {
		if !slices.Contains(than, name) {
			return name, true
		}
	}
	return "", false
}
