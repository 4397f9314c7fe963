#!/usr/bin/env bash
# Debian packages that tests want and pip has not: a real OpenID Connect server, a real PostgreSQL, a real
# DICOM archive (orthanc, orthanc-dicomweb), and tools that nobody here wrote to read DICOM (dcmtk, dicom3tools).
# Installs what is missing where it may (root, apt-get); elsewhere says what is missing and goes on, and the
# tests that need it are skipped with their reason. Does nothing, quietly, when all is there.
set -euo pipefail

missing=()
command -v glewlwyd > /dev/null || missing+=(glewlwyd)
compgen -G '/usr/lib/postgresql/*/bin/initdb' > /dev/null || command -v initdb > /dev/null || missing+=(postgresql)
command -v Orthanc > /dev/null || missing+=(orthanc)
compgen -G '/usr/share/orthanc/plugins/libOrthancDicomWeb.so*' > /dev/null || missing+=(orthanc-dicomweb)
command -v dsrdump > /dev/null || missing+=(dcmtk)
command -v dciodvfy > /dev/null || missing+=(dicom3tools)
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -eq 0 ] && command -v apt-get > /dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    if { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } > /dev/null 2>&1; then
        echo "Installed for the tests: ${missing[*]}"
        exit 0
    fi
    echo "Could not be installed: ${missing[*]}. Tests that need them are skipped." >&2
    exit 0
fi
echo "Not installed: ${missing[*]}. Tests that need them are skipped. On Debian: apt-get install ${missing[*]}" >&2
