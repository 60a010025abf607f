package event

// DecodePlainly is Decode by encoding/json alone.
var DecodePlainly = decodePlainly
