module github.com/tagstream/tagstream/deploy/secrets

go 1.26.5

require (
	github.com/nats-io/nkeys v0.4.16
	github.com/stretchr/testify v1.12.1
)

require (
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/crypto v0.52.0 // indirect
	golang.org/x/sys v0.45.0 // indirect
)
