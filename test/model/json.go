package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"reflect"
)

// decodeJSON decodes one JSON value, with exact numbers. Unknown fields are an error: answers must
// contain only what the contract specifies.
func decodeJSON(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more follows the JSON value")
	}
	return nil
}

// sameJSON reports whether two JSON texts mean the same. 1 and 1.0 do.
func sameJSON(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true // both were decoded before
	}
	var x, y any
	return decodeJSON(a, &x) == nil && decodeJSON(b, &y) == nil && reflect.DeepEqual(plain(x), plain(y))
}

// plain converts the numbers in a value to one notation.
func plain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = plain(v[k])
		}
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	case json.Number:
		if r, ok := new(big.Rat).SetString(v.String()); ok {
			return json.Number(r.RatString())
		}
	}
	return v
}
