import socket
from pathlib import Path

import pytest
from joblog.services.embedded.ports import PICKED_FROM, choose_ports, is_free
from joblog.streams.errors import StackError


def nobody(line: str) -> None:
    raise AssertionError(line)


def test_picked_ports_are_free_different_and_remembered(tmp_path: Path) -> None:
    memory = tmp_path / "ports.json"
    ports = choose_ports(memory, {"Kafka": None, "Postgres": None}, nobody)
    assert len(set(ports.values())) == 2
    assert all(port in PICKED_FROM and is_free(port) for port in ports.values())
    assert choose_ports(memory, {"Kafka": None, "Postgres": None}, nobody) == ports


def test_a_given_port_is_taken_and_remembered(tmp_path: Path) -> None:
    memory = tmp_path / "ports.json"
    given = choose_ports(tmp_path / "other.json", {"Kafka": None}, nobody)["Kafka"]
    assert choose_ports(memory, {"Kafka": given}, nobody) == {"Kafka": given}
    assert choose_ports(memory, {"Kafka": None}, nobody) == {"Kafka": given}


def test_a_given_port_that_is_busy_is_an_error_with_the_fix(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(StackError, match=f"port {port} .*wanted for Kafka.*give Kafka another port"):
            choose_ports(tmp_path / "ports.json", {"Kafka": port}, nobody)


def test_a_remembered_port_that_is_busy_now_moves_and_says_so(tmp_path: Path) -> None:
    memory = tmp_path / "ports.json"
    said: list[str] = []
    before = choose_ports(memory, {"Kafka": None, "Postgres": None}, nobody)
    with socket.create_server(("127.0.0.1", before["Kafka"])):
        after = choose_ports(memory, {"Kafka": None, "Postgres": None}, said.append)
    assert after["Kafka"] != before["Kafka"]
    assert after["Postgres"] == before["Postgres"]
    assert said == [f"port {before['Kafka']} is now in use by another program; Kafka gets port {after['Kafka']}"]


@pytest.mark.parametrize(
    "text",
    ["", '{"Kafka": 2', "[1]", "null", '{"Kafka": "x"}', '{"Kafka": 0}', '{"Kafka": 70000}', '{"Kafka": true}'],
)
def test_ports_that_cannot_be_read_are_picked_anew(tmp_path: Path, text: str) -> None:
    memory = tmp_path / "ports.json"
    memory.write_text(text)
    ports = choose_ports(memory, {"Kafka": None}, nobody)
    assert ports["Kafka"] in PICKED_FROM
    assert choose_ports(memory, {"Kafka": None}, nobody) == ports


def test_ports_are_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = tmp_path / "ports.json"
    before = choose_ports(memory, {"Kafka": None}, nobody)

    def killed(_path: Path, _target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        choose_ports(memory, {"Kafka": None, "Postgres": None}, nobody)
    monkeypatch.undo()
    assert choose_ports(memory, {"Kafka": None}, nobody) == before


def test_ports_of_servers_not_wanted_this_time_are_not_forgotten(tmp_path: Path) -> None:
    memory = tmp_path / "ports.json"
    both = choose_ports(memory, {"Kafka": None, "Postgres": None}, nobody)
    choose_ports(memory, {"Kafka": None}, nobody)
    assert choose_ports(memory, {"Postgres": None}, nobody) == both
