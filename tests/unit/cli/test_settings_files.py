"""The settings files that the command line writes."""

from __future__ import annotations

import tomllib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from libs.cli.settings_files import (
    coordinator_settings,
    hospital_settings,
    party_settings,
    to_toml,
)
from libs.runtime.settings import load_settings
from services.coordinator.settings import CoordinatorSettings
from services.hospital_node.settings import HospitalSettings
from services.smpc_party.settings import PartySettings

PARTIES = ("a:1", "b:2", "c:3")

_scalars = st.text() | st.integers(-(2**53), 2**53) | st.booleans() | st.lists(st.text(), max_size=3)
_keys = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
_tables = st.dictionaries(_keys, _scalars, max_size=3)


@given(st.dictionaries(_keys, _scalars | _tables | st.lists(_tables, min_size=1, max_size=3), max_size=5))
def test_toml_reads_back_as_it_was_written(settings: dict[str, object]) -> None:
    assert tomllib.loads(to_toml(settings)) == settings


def test_every_service_accepts_the_file_written_for_it(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(to_toml(coordinator_settings(listen="h:1", parties=PARTIES)))
    assert [party.index for party in load_settings(CoordinatorSettings, file).parties] == [0, 1, 2]
    file.write_text(to_toml(party_settings(index=1, listen="h:1", parties=PARTIES)))
    assert [peer.index for peer in load_settings(PartySettings, file).peers] == [0, 2]
    file.write_text(to_toml(hospital_settings(name="north", listen="h:1", coordinator="c:1")))
    assert load_settings(HospitalSettings, file).data_roots == (tmp_path / "data",)
