package event

// DecodePlainly is Decode with encoding/json alone.
var DecodePlainly = decodePlainly

// EncodePlainly is Encode with encoding/json alone.
func EncodePlainly(e *Event) ([]byte, error) { return e.encodePlainly() }
