#!/bin/sh
# Make the namespace and the search attributes that Pinflow uses. Doing it again does nothing.
set -eu

until temporal operator cluster health; do
  echo "Temporal does not answer yet"
  sleep 2
done
temporal operator namespace describe --namespace default ||
  temporal operator namespace create --namespace default --retention 72h
for name in PinflowCommitSha PinflowDigest PinflowSource; do
  # It refuses one that is there already, and one that the namespace's cache has not seen yet: hence the loop.
  until temporal operator search-attribute list | grep --quiet "$name"; do
    temporal operator search-attribute create --name "$name" --type Keyword || sleep 2
  done
done
