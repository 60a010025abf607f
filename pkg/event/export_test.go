package event

// DecodePlainly does what Decode does with encoding/json alone.
var DecodePlainly = decodePlainly
