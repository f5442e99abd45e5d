"""How the processes of one run find each other."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from torch import distributed

from asrtool.distributed import Ranks, rendezvous


@pytest.fixture
def store(monkeypatch):
    """A store that outlives the processes, as torchrun keeps it."""
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    where = {"RANK": "0", "WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    for name, value in (where | {"TORCHELASTIC_USE_AGENT_STORE": "True"}).items():
        monkeypatch.setenv(name, value)
    return store


def all_stores(delays: list[float]) -> list:
    """The store that each rank gets; rank r starts after `delays[r]` seconds."""

    def late(rank):
        time.sleep(delays[rank])
        return rendezvous(Ranks(rank, len(delays)), 20.0)

    with ThreadPoolExecutor(len(delays)) as pool:
        return list(pool.map(late, range(len(delays))))


@pytest.mark.parametrize(
    "delays", [[0.0, 0.5, 0.0], [1.5, 0.0, 0.0]], ids=["first rank starts first", "first rank starts last"]
)
def test_addresses_of_an_earlier_start_are_not_seen_after_a_restart(store, delays):
    before = all_stores([0.0, 0.0, 0.0])
    before[0].set("address of 0", "gone")
    assert before[1].get("address of 0") == b"gone"
    after = all_stores(delays)
    assert not after[1].check(["address of 0"]) and not after[0].check(["address of 0"])
    after[0].set("address of 0", "here")
    assert [each.get("address of 0") for each in after] == [b"here"] * 3


def test_a_rank_gives_up_waiting_for_a_first_rank_that_is_gone(store):
    all_stores([0.0, 0.0, 0.0])
    with pytest.raises(distributed.DistStoreError):
        rendezvous(Ranks(1, 3), 2.0)
