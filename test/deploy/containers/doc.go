// Package containers tests the deployment as users run it: docker-compose.yml with the images of
// deploy/Dockerfile, on a real container engine.
//
// It is part of a separate module, because compose has more dependencies than the rest of the
// project. Run it with "make test-containers". Without an engine or images every test is skipped
// with a reason; with CI=true or TEST_CONTAINERS=required it fails instead.
package containers
