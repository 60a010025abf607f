// Package containers tests the deployment as users run it: docker-compose.yml
// with the images that deploy/Dockerfile makes, on a real container engine.
//
// It is a module of its own, since compose brings more dependencies than all
// the rest of the project. Run it with "make test-containers". Where there is
// no engine, or the images were not built, every test is skipped with a line
// that says so; with CI=true or TEST_CONTAINERS=required it fails instead.
package containers
