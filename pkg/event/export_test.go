package event

// DecodePlainly does what Decode does with encoding/json alone.
var DecodePlainly = decodePlainly

// EncodePlainly is Encode by encoding/json alone.
func EncodePlainly(e *Event) ([]byte, error) { return e.encodePlainly() }
