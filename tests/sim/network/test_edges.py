"""Edge aggregators in a scenario: who stands where, what is refused, graphs, and requests that cross them."""

import json
import math
from collections import Counter

import networkx as nx
import pytest
from pydantic import ValidationError

from fedsim.errors import DataFileError, ScenarioError
from fedsim.experiment.prepared import Prepared
from fedsim.scenario.read import read_scenario, scenario_from
from fedsim.sim import streams
from fedsim.sim.network.config import NetworkConfig
from fedsim.sim.network.edges import EdgesConfig, edge_tree
from tests.samples.worlds import ROUND

LINK = {"up": "8 Mbit/s", "down": "16 Mbit/s"}


def config(**edges):
    return EdgesConfig.model_validate_json(json.dumps(edges))


def refused(**edges):
    with pytest.raises(ValidationError) as error:
        config(**edges)
    return str(error.value)


def homes(edges, classes, seed=0):
    return edge_tree(edges, seed, classes).homes


def test_clients_stand_behind_the_edge_that_names_them_or_their_class():
    edges = config(west={**LINK, "classes": ["phone"]}, office={**LINK, "clients": [1, 3]})
    assert homes(edges, ["phone", "phone", "laptop", "laptop"]) == {0: "west", 1: "office", 3: "office"}


def test_edges_of_one_class_divide_it_evenly_by_one_draw_per_client():
    edges = config(west={**LINK, "classes": ["phone"]}, east={**LINK, "classes": ["phone"]})
    placed = homes(edges, ["phone"] * 4000)
    # Binomial(4000, 1/2): 3.5 standard deviations are 111.
    assert abs(Counter(placed.values())["west"] - 2000) < 111
    assert all((streams.uniform(0, "edge", k) < 0.5) == (name == "west") for k, name in placed.items())
    assert homes(edges, ["phone"] * 10) == {k: placed[k] for k in range(10)}  # more clients move nobody
    assert homes(edges, ["phone"] * 4000, seed=1) != placed


def test_a_share_leaves_the_rest_to_others_or_to_the_servers_link():
    classes = ["phone"] * 4000
    edges = config(west={**LINK, "share": 0.2}, east={**LINK, "classes": ["phone"]})
    counts = Counter(homes(edges, classes).values())
    assert abs(counts["west"] - 800) < 3.5 * math.sqrt(4000 * 0.16)
    assert counts["west"] + counts["east"] == 4000
    alone = homes(config(west={**LINK, "share": 0.2}), classes)
    assert Counter(alone.values()) == {"west": counts["west"]}


def test_round_trips_of_the_edges_on_the_way_add_up():
    edges = config(
        west={**LINK, "clients": [0], "rtt": "20 ms", "parent": "core"},
        core={**LINK, "clients": [1], "rtt": "5 ms"},
    )
    profiles = edge_tree(edges, 0, ["phone"] * 3).behind([ROUND] * 3)
    assert [profile.rtt_s for profile in profiles] == [pytest.approx(1.025), 1.005, 1.0]


def test_what_is_no_tree_and_who_stands_nowhere_is_refused():
    assert "edges in a circle: a -> b -> a" in refused(
        a={**LINK, "clients": [0], "parent": "b"}, b={**LINK, "parent": "a"}
    )
    assert "the parent of a is 'c', which is no edge (b)" in refused(
        a={**LINK, "clients": [0], "parent": "c"}, b={**LINK, "clients": [1]}
    )
    assert "nobody stands behind a" in refused(a=LINK)
    assert "an edge cannot be called server" in refused(server={**LINK, "clients": [0]})
    assert "client 4 stands behind two edges" in refused(
        a={**LINK, "clients": [4]}, b={**LINK, "clients": [2, 4]}
    )
    assert "no edges" in refused()
    assert "not both" in refused(file="tree.graphml", a={**LINK, "clients": [0]})


def test_clients_classes_and_shares_that_cannot_be_are_refused_for_the_clients_of_the_run():
    with pytest.raises(ScenarioError, match=r"edges\.a\.clients: there is no client 2; ids are 0 to 1"):
        homes(config(a={**LINK, "clients": [2]}), ["phone"] * 2)
    with pytest.raises(
        ScenarioError, match=r"edges\.a\.classes: there is no client of class 'tablet' \(phone\)"
    ):
        homes(config(a={**LINK, "classes": ["tablet"]}), ["phone"] * 2)
    with pytest.raises(ScenarioError, match=r"shares of class 'phone' sum to 1\.2"):
        homes(config(a={**LINK, "share": 0.6}, b={**LINK, "share": 0.6}), ["phone"] * 2)


def test_resolved_edges_are_edges_again():
    network = NetworkConfig.model_validate_json(
        json.dumps({"edges": {"a": {**LINK, "share": 0.5, "rtt": "3 ms"}, "b": {**LINK, "clients": [3]}}})
    )
    assert NetworkConfig.model_validate_json(json.dumps(network.model_dump(mode="json"))) == network


# -------------------------------------------------------------------------------------------------------- graphs


def graph():
    drawn = nx.DiGraph()
    drawn.add_node("west", classes="phone, laptop")
    drawn.add_node("office", clients="1,3", share=0.25)
    drawn.add_edge("west", "core", up="8 Mbit/s", down="16 Mbit/s", rtt="20 ms")
    drawn.add_edge("core", "server", up="1 Gbit/s", down="unlimited")
    drawn.add_edge("office", "server", **LINK)
    return drawn


def test_a_graphml_file_beside_its_scenario_is_the_tree_that_its_arcs_draw(tmp_path):
    expected = config(
        west={**LINK, "rtt": "20 ms", "classes": ["phone", "laptop"], "parent": "core"},
        office={**LINK, "clients": [1, 3], "share": 0.25},
        core={"up": "1 Gbit/s", "down": "unlimited"},
    )
    nx.write_graphml(graph(), tmp_path / "tree.graphml")
    classes = ["phone", "phone", "laptop", "phone"]
    from_file = edge_tree(config(file="tree.graphml"), 0, classes, tmp_path)
    assert from_file.edges == expected.edges
    assert from_file.homes[1] == from_file.homes[3] == "office"
    (tmp_path / "run.yaml").write_text(
        "name: x\nstop: {updates: 1}\nprotocol: fedgrpo\nclients: {phone: 3, laptop: 1}\n"
        "network: {edges: {file: tree.graphml}}\n"
    )
    scenario = read_scenario(tmp_path / "run.yaml")
    assert scenario.anchored().network.edges.file == str(tmp_path / "tree.graphml")

    assert Prepared(scenario).edges == edge_tree(
        config(file="tree.graphml"), 0, ["phone"] * 3 + ["laptop"], tmp_path
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.remove_edge("core", "server"), "'core' has 0 arcs that leave it"),
        (lambda g: g.add_edge("west", "server", **LINK), "'west' has 2 arcs that leave it"),
        (lambda g: g.add_edge("server", "west"), "an arc leads away from 'server'"),
        (lambda g: g.remove_node("server"), "has no node 'server'"),
        (lambda g: g.edges["west", "core"].update(up="fast"), r"west\.up"),
        (lambda g: g.nodes["west"].update(colour="red"), r"west\.colour"),
    ],
)
def test_a_file_that_holds_no_tree_says_what_is_wrong(tmp_path, change, message):
    drawn = graph()
    change(drawn)
    nx.write_graphml(drawn, tmp_path / "tree.graphml")
    with pytest.raises(DataFileError, match=rf"tree\.graphml: .*{message}"):
        edge_tree(config(file="tree.graphml"), 0, ["phone", "laptop", "phone", "phone"], tmp_path)


def test_a_missing_file_an_undirected_graph_and_no_xml_are_refused(tmp_path):
    with pytest.raises(DataFileError, match=r"tree\.graphml: cannot be read"):
        edge_tree(config(file="tree.graphml"), 0, ["phone"], tmp_path)
    nx.write_graphml(graph().to_undirected(), tmp_path / "tree.graphml")
    with pytest.raises(DataFileError, match="must be a directed graph"):
        edge_tree(config(file="tree.graphml"), 0, ["phone"], tmp_path)
    (tmp_path / "tree.graphml").write_text("<graph")
    with pytest.raises(DataFileError, match=r"tree\.graphml:1: not XML"):
        edge_tree(config(file="tree.graphml"), 0, ["phone"], tmp_path)


# ----------------------------------------------------------------------------------------------------- whole runs


def timing_run(folder, **network):
    from fedsim.experiment.run import run

    return run(
        scenario_from(
            {
                "name": "edges",
                "fidelity": "timing",
                "stop": {"updates": 1},
                "protocol": "fedgrpo",
                "clients": {"phone": 4, "laptop": 4},
                "network": network,
            }
        ),
        out=folder,
    )


def test_wide_edges_without_delay_change_no_record_and_narrow_ones_take_time(tmp_path):
    wide = {"up": "unlimited", "down": "unlimited"}
    plain = timing_run(tmp_path / "plain")
    edged = timing_run(tmp_path / "wide", edges={"a": {**wide, "share": 0.5, "parent": "b"}, "b": wide})
    narrow = timing_run(
        tmp_path / "narrow", edges={"a": {"up": "20 kbit/s", "down": "40 kbit/s", "share": 1.0}}
    )
    bytes_of = [one.summary["bytes"]["wire"] for one in (plain, edged)]
    assert bytes_of[0] == bytes_of[1]
    times = [one.summary["virtual_s"] for one in (plain, edged, narrow)]
    assert times[1] == pytest.approx(times[0], rel=1e-9)
    assert times[2] > 1.5 * times[0]
