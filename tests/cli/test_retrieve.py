"""`hedgerow retrieve` with the films demo, and with a model and an index from folders."""

import json

import numpy as np
import pytest
from commands import assert_refused, lines_of

import hedgerow as hr
from hedgerow.cli.search import check_model

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from tiny import CODES, TOKENS, tokenizer

from hedgerow.hf import Retriever


class TestRetrieve:
    def test_films_are_the_default(self, call):
        code, stdout, _ = call("retrieve", "-p", "Recommend me a western", "-k", "5", "--json", on_shop=False)
        assert code == 0
        (answer,) = lines_of(stdout)
        assert answer["prompt"] == "Recommend me a western"
        assert sum("western" in film["genres"] for film in answer["items"]) >= 4

    def test_json_has_one_line_per_prompt(self, call, shop):
        code, stdout, stderr = call("retrieve", "-p", "w5 w6", "-p", "w9", "--beam-width", "7", "-k", "4", "--json")
        assert (code, stderr) == (0, "")
        for answer, results in zip(lines_of(stdout), shop[1].retrieve(["w5 w6", "w9"], beam_width=7, k=4), strict=True):
            assert [item["item_id"] for item in answer["items"]] == results.item_ids
            assert [item["score"] for item in answer["items"]] == pytest.approx(results.scores.tolist(), abs=1e-5)
            assert [item["title"] for item in answer["items"]] == results.attributes["title"].to_pylist()

    def test_a_table_shows_ids_attributes_and_scores(self, call, shop):
        code, stdout, _ = call("retrieve", "-p", "w5 w6", "-k", "3", "--columns", "title, kinds,maker")
        results = shop[1].retrieve("w5 w6", k=3)[0]
        assert code == 0
        title, head, *rows = stdout.splitlines()
        assert title.strip() == "w5 w6"
        assert head.split() == ["item_id", "title", "kinds", "maker", "score"]
        for rank, (row, item) in enumerate(zip(rows, results.to_pylist(), strict=True), 1):
            maker = item["maker"] or "unknown"
            title = item["title"].split()
            assert row.split() == [str(rank), item["item_id"], *title, "a,", "b", maker, f"{item['score']:.2f}"]

    def test_default_columns_and_no_columns(self, call):
        assert call("retrieve", "-p", "w5")[1].splitlines()[1].split() == [
            "item_id", "title", "year", "kinds", "maker", "score",
        ]  # fmt: skip
        assert call("retrieve", "-p", "w5", "--columns", "")[1].splitlines()[1].split() == ["item_id", "score"]

    def test_columns_in_json(self, call):
        code, stdout, _ = call("retrieve", "-p", "w5", "--columns", "year,title", "--json")
        assert code == 0
        assert list(lines_of(stdout)[0]["items"][0]) == ["year", "title", "item_id", "score", "sid"]

    def test_prompts_from_a_file(self, call, tmp_path):
        path = tmp_path / "prompts.jsonl"
        path.write_text('"w5 w6"\n\n[5, 6]\n{"prompt": "w9", "id": 7}\n{"prompt": [9]}\n')
        code, stdout, _ = call("retrieve", "--input", path, "-k", "2", "--json")
        assert code == 0
        text, ids, named, named_ids = lines_of(stdout)
        assert text["items"] == ids["items"]
        assert named["items"] == named_ids["items"]
        assert (ids["prompt"], named["id"]) == ([5, 6], 7)
        assert call("retrieve", "--input", path)[0] == 0

    def test_options_reach_the_retriever(self, call, shop):
        retriever = shop[1]
        for normalize, temperature in (("vocab", 1.0), ("allowed", 1.0), ("codes", 3.0)):
            options = {"normalize": normalize, "temperature": temperature}
            expected = Retriever(retriever.model, retriever.index, TOKENS, **options).retrieve([5, 6])
            words = ("--normalize", normalize, "--temperature", temperature)
            _, stdout, _ = call("retrieve", "-p", "w5 w6", *words, "--json")
            scores = [item["score"] for item in lines_of(stdout)[0]["items"]]
            assert scores == pytest.approx(expected[0].scores.tolist(), abs=1e-5)
        code, _, stderr = call("retrieve", "-p", "w5", "--tokens", "<{level}_{code}>")
        assert code == 1
        assert "no token of the vocabulary looks like '<{level}_{code}>'" in stderr
        assert call("retrieve", "-p", "w5", "--tokens", "<s_{level}_{code}>", "--dtype", "bfloat16")[0] == 0

    def test_compile_needs_a_compiler(self, call, shop, monkeypatch):  # noqa: ARG002
        monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
        code, _, stderr = call("retrieve", "-p", "w5", "--compile")
        assert code == 1
        assert "needs a C++ compiler" in stderr


def test_says_that_the_films_demo_answers(call):
    for words in (("retrieve", "-k", "1"), ("explain", "--item", "title=Alien")):
        code, _, stderr = call(*words, "-p", "A western", on_shop=False)
        assert (code, stderr) == (0, "The model and the index of the films demo answer. For your own: MODEL INDEX.\n")
    assert "demo" not in call("retrieve", "-k", "1", "-p", "w5")[2]


class TestRules:
    """--where, --exclude and --end, and the rules of single requests."""

    def test_reach_the_retriever(self, call, shop):
        pytest.importorskip("duckdb")
        retriever = shop[1]
        years = retriever.index.where("year >= 1950")
        expected = retriever.retrieve(["w5 w6"], constraints=years, exclude=[["t120", "t121", "none"]])[0]
        assert expected.item_ids
        words = ("-p", "w5 w6", "--where", "year >= 1950", "--exclude", "t120, t121,none")
        _, stdout, _ = call("retrieve", *words, "--json")
        assert [item["item_id"] for item in lines_of(stdout)[0]["items"]] == expected.item_ids
        for item, outcome in (("t3", "not in the set"), ("t121", "excluded"), (expected.item_ids[0], "returned")):
            assert json.loads(call("explain", *words, "--item", item, "--json")[1])["outcome"] == outcome

    def test_rules_of_single_requests(self, call, shop, tmp_path):
        pytest.importorskip("duckdb")
        path = tmp_path / "prompts.jsonl"
        lines = ['"w5"', '{"prompt": "w5", "where": "year < 1960"}', '{"prompt": "w5", "exclude": ["t110"]}']
        path.write_text("\n".join(lines))
        code, stdout, _ = call("retrieve", "--input", path, "--where", "year >= 1950", "--exclude", "t111", "--json")
        assert code == 0
        index = shop[1].index
        late = index.where("year >= 1950")
        found = shop[1].retrieve(
            ["w5"] * 3,
            constraints=[late, late & index.where("year < 1960"), late],
            exclude=[["t111"], ["t111"], ["t111", "t110"]],
        )
        answers = lines_of(stdout)
        assert [[item["item_id"] for item in answer["items"]] for answer in answers] == [one.item_ids for one in found]
        assert answers[1]["where"] == "year < 1960"

    def test_sizes_caps_order_and_candidates_of_single_requests(self, call, shop, tmp_path):
        listed = [f"t{row}" for row in range(0, 150, 3)]
        requests = [
            {"k": 2, "beam_width": 40},
            {"caps": {"year": 1}, "k": 30},
            {"order_by": ["year", "descending"], "k": 150, "beam_width": 150},
            {"candidates": listed, "exclude": None, "k": None},
            {"caps": {"maker": 1}, "candidates": listed},
        ]
        path = tmp_path / "prompts.jsonl"
        path.write_text("".join(json.dumps({"prompt": "w5", "extra": {"user": 7}, **each}) + "\n" for each in requests))
        words = ("--input", path, "--caps", "maker=3", "-k", "9", "--candidates", ",".join([*listed[:20], "none"]))
        code, stdout, _ = call("retrieve", *words, "--json")
        assert code == 0
        answers = lines_of(stdout)
        assert all(answer["extra"] == {"user": 7} for answer in answers)
        for own, answer in zip(requests, answers, strict=True):
            expected = shop[1].retrieve(
                "w5",
                k=own.get("k") or 9,
                beam_width=own.get("beam_width", 50),
                caps={"maker": 3} | own.get("caps", {}),
                order_by=own.get("order_by"),
                candidates=[listed[:20]],
            )[0]
            assert [item["item_id"] for item in answer["items"]] == expected.item_ids
        assert [len(answer["items"]) for answer in answers[:1]] == [2]

    def test_options_for_caps_order_and_candidates(self, call, shop):
        listed = [f"t{row}" for row in range(100)]
        rules = {"caps": {"maker": 2, "year": 1}, "order_by": ("year", "ascending")}
        expected = shop[1].retrieve("w5", candidates=[listed], **rules)[0].item_ids
        words = (
            "-p",
            "w5",
            "--candidates",
            ",".join(listed),
            "--caps",
            "maker=2, year=1",
            "--order-by",
            "year:ascending",
        )
        assert [item["item_id"] for item in lines_of(call("retrieve", *words, "--json")[1])[0]["items"]] == expected
        for item in ("t120", *expected[:2], *(item for item in listed if item not in expected)):
            outcome = json.loads(call("explain", *words, "--item", item, "--json")[1])["outcome"]
            assert (outcome == "returned") == (item in expected)
            assert (outcome == "not a candidate") == (item == "t120")
            if item == "t9":
                break

    @pytest.mark.parametrize(
        ("words", "count", "reason"),
        [
            (["--beam-width", "2", "-k", "9"], 2, "beams"),
            (["-k", "100", "--caps", "year=1", "--beam-width", "150"], 75, "caps"),
            (["-k", "9", "--candidates", "t1,t2,t3"], 3, "set"),
            (["-k", "900", "--beam-width", "900"], 150, "catalog"),
            (["-k", "4"], 4, None),
            (["--beam-width", "2", "-k", "9", "--fill"], 9, None),
        ],
    )
    def test_fewer_items_than_asked_for_are_said(self, call, words, count, reason):
        answer = lines_of(call("retrieve", "-p", "w5", *words, "--json")[1])[0]
        assert (answer["complete"], answer["reason"]) == (reason is None, reason)
        assert len(answer["items"]) == count
        last = call("retrieve", "-p", "w5", *words)[1].splitlines()[-1]
        k = words[words.index("-k") + 1]
        assert last.startswith(f"{len(answer['items'])} of {k} items: ") == (reason is not None)

    @pytest.mark.parametrize("caps", ["maker", "maker=0", "maker=x", "=1", "maker=1,maker=2"])
    def test_caps_that_are_none(self, call, caps):
        code, _, stderr = call("retrieve", "-p", "w5", "--caps", caps)
        assert (code, "--caps" in stderr) == (2, True)

    def test_the_number_of_an_invalid_prompt(self, call):
        assert_refused(call("retrieve", "-p", "w5", "-p", " "), "-p number 2: prompt 0 is empty")

    def test_no_item_matches(self, call, tmp_path):
        pytest.importorskip("duckdb")
        code, stdout, _ = call("retrieve", "-p", "w5", "--where", "year > 3000")
        assert (code, stdout) == (0, "w5: no item matches --where\n")
        path = tmp_path / "prompts.jsonl"
        path.write_text('{"prompt": "w5", "where": "year > 3000"}\n"w6"')
        first, _, *others = call("retrieve", "--input", path)[1].splitlines()
        assert first == "w5: no item matches --where"
        assert others
        every = ",".join(f"t{row}" for row in range(150))
        excluded = call("retrieve", "-p", "w5", "--exclude", every)[1]
        assert excluded == "w5: no item was found: the rules allow no items\n"

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ('{"prompt": "w5", "where": "colour = 1"}', "'colour = 1' cannot be used"),
            ('{"prompt": "w5", "where": 3}', "expected an SQL expression"),
            ('{"prompt": "w5", "exclude": "t1"}', "line 1: \"exclude\" must be a list of item ids; got 't1'"),
            ('{"prompt": "w5", "exclude": [1]}', "item ids of this index, of type string"),
        ],
    )
    def test_invalid_rules_are_one_line(self, call, tmp_path, line, expected):
        pytest.importorskip("duckdb")
        (tmp_path / "prompts.jsonl").write_text(line)
        assert_refused(call("retrieve", "--input", tmp_path / "prompts.jsonl"), expected)

    def test_integer_ids_and_ragged_sids(self, call, shop, tmp_path):
        """SIDs of one to three codes, with an end token of the tokenizer."""
        rng = np.random.default_rng(0)
        sids = [rng.integers(0, CODES, 1 + row % 3).tolist() for row in range(60)]
        index = hr.build_index(hr.Catalog(sids, codebook_sizes=CODES, item_ids=np.arange(60), ragged=True))
        index.save(tmp_path / "ragged.hedgerow")
        folders = ("--model", shop[0] / "model", "--index", tmp_path / "ragged.hedgerow")
        tokens = hr.TokenMap(TOKENS.token_ids, end=(7,))
        expected = Retriever(shop[1].model, index, tokens).retrieve([[5, 6]], exclude=[[3, 4]])[0]
        assert len({len(item["sid"]) for item in expected.to_pylist()}) > 1
        for end in ("7", tokenizer().convert_ids_to_tokens(7)):
            words = ("retrieve", "-p", "w5 w6", "--end", end, "--exclude", "3,4", "--json", *folders)
            _, stdout, stderr = call(*words, on_shop=False)
            assert [item["item_id"] for item in lines_of(stdout)[0]["items"]] == expected.item_ids, stderr
        words = ("retrieve", "-p", "w5 w6", *folders)
        assert_refused(call(*words, "--end", "nothing", on_shop=False), "end: 'nothing' is not a token")
        assert_refused(
            call(*words, "--end", "7", "--exclude", "x", on_shop=False),
            "--exclude must be item ids of this index, of type int64; got 'x'",
        )


def test_searches_the_current_version_of_a_live_index(call, shop, tmp_path):
    best = shop[1].retrieve("w5 w6", k=1)[0].item_ids[0]
    live = hr.LiveIndex.create(tmp_path / "things.live", shop[1].index)
    live.remove([best])
    words = ("-p", "w5 w6", "--model", shop[0] / "model", "--index", live.path)
    _, stdout, stderr = call("retrieve", *words, "--json", on_shop=False)
    found = [item["item_id"] for item in lines_of(stdout)[0]["items"]]
    assert found == Retriever(shop[1].model, live, TOKENS).retrieve([[5, 6]])[0].item_ids, stderr
    assert best not in found
    assert "was removed from the live index" in call("explain", *words, "--item", best, on_shop=False)[1]


class TestBadInput:
    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (["-p", " "], "prompt 0 is empty"),
            (["-p", " ".join(["w5"] * 63)], "but the model takes 62 before a SID"),
            (["-p", "w5", "--columns", "title,colour"], "no attribute 'colour'; the attributes are title, year,"),
            (["-p", "w5", "--columns", "colour", "--json"], "no attribute 'colour'"),
            (["-p", "w5", "--normalize", "softmax"], "normalize must be one of codes, vocab, allowed"),
            (["-p", "w5", "--temperature", "0"], "temperature must be a finite number above 0; got 0.0"),
            (["-p", "w5", "--dtype", "int8"], "dtype must be one of float32, bfloat16, float16; got 'int8'"),
            (["-p", "w5", "--dtype", "float8_e5m2"], "dtype must be"),
            (["-p", "w5", "--device", "warp"], "'warp'"),
            (["--input", "missing.jsonl"], "missing.jsonl cannot be read"),
        ],
    )
    def test_is_one_line_and_exit_code_1(self, call, words, expected):
        assert_refused(call("retrieve", *words), expected)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is such a device")
    def test_a_device_that_does_not_exist(self, call):
        assert_refused(call("retrieve", "-p", "w5", "--device", "cuda"), "'cuda'")

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ("", "contains no prompt"),
            ("\n \n", "contains no prompt"),
            ('"w5"\n{"prompt": ', "line 2 is not JSON"),
            ('{"text": "w5", "k": 3}', 'line 1 has neither "prompt" nor "history"; it has text, k.'),
            ('"w5"\n{"prompt": "w5", "were": "year > 2010"}', "line 2: unknown key 'were'; did you mean 'where'?"),
            ('{"prompt": "w5", "user": 7}', "unknown key 'user'; the keys are prompt, history, where, exclude, "),
            ('{"prompt": "w5", "user": 7}', 'order_by, id, extra. Keys of your own belong in "extra".'),
            ('{"prompt": "w5", "exlude": ["t1"]}', "unknown key 'exlude'; did you mean 'exclude'?"),
            ('{"prompt": "w5", "Where": "year > 1"}', "unknown key 'Where'; did you mean 'where'?"),
            ('{"prompt": "w5", "k": 0}', "line 1: k must be a positive integer"),
            ('{"prompt": "w5", "k": "3"}', "line 1: k must be a positive integer"),
            ('{"prompt": "w5", "beam_width": 2.5}', "line 1: beam_width must be a positive integer"),
            ('{"prompt": "w5", "caps": 1}', 'line 1: "caps" must map attributes to counts'),
            ('{"prompt": "w5", "caps": {"maker": 0}}', "line 1: caps['maker'] must be a positive integer"),
            ('{"prompt": "w5", "caps": {"colour": 1}}', "line 1: caps: there is no attribute 'colour'"),
            ('{"prompt": "w5", "order_by": ["year", "up"]}', "line 1: order_by must be an attribute name"),
            ('{"prompt": "w5", "order_by": "colour"}', "line 1: order_by: there is no attribute 'colour'"),
            ('{"prompt": "w5", "candidates": "t1"}', 'line 1: "candidates" must be a list of item ids'),
            ('{"prompt": "w5", "candidates": [1]}', "line 1: candidates of request 0 must be item ids of this"),
            ("{}", 'line 1 has neither "prompt" nor "history"; it has nothing.'),
            ('"w5"\n""', "line 2: prompt 0 is empty"),
            ("[5, 900]", "prompt 0 contains token 900"),
            ("[5, -1]", "prompt 0 contains token -1"),
            ('"w5"\nnull', "line 2"),
            ("5", "line 1"),
            ("5\n6", "line 1"),
            ("true", "line 1"),
            ('{"prompt": {"role": "user"}}\n{"prompt": {"role": "user"}}', "line 1"),
            ("[1.5]", "prompt 0 must be text"),
            ('[{"role": "user", "content": "w5"}]', "cannot format prompt 0, a chat"),
        ],
    )
    def test_in_a_file_of_prompts(self, call, tmp_path, content, expected):
        path = tmp_path / "prompts.jsonl"
        path.write_text(content)
        code, stdout, stderr = call("retrieve", "--input", path)
        # The valid lines are answered.
        assert (code, bool(stdout)) == (1, '"w5"' in content.splitlines())
        assert all(line.startswith("hedgerow: ") for line in stderr.splitlines())
        assert expected in stderr

    def test_a_file_that_is_not_text(self, call, tmp_path):
        (tmp_path / "prompts.jsonl").write_bytes(b"\xff\xfe\x00")
        assert_refused(call("retrieve", "--input", tmp_path / "prompts.jsonl"), "cannot be read")

    @pytest.mark.parametrize(
        "words",
        [
            ["retrieve"],
            ["retrieve", "-p", "w5", "--input", "x.jsonl"],
            ["retrieve", "-p", "w5", "-k", "0"],
            ["retrieve", "-p", "w5", "--model", "x"],
            ["explain", "--item", "t3"],
            ["explain", "-p", "w5"],
        ],
    )
    def test_wrong_usage_is_exit_code_2(self, call, words):
        code, stdout, stderr = call(*words, on_shop=False)
        assert (code, stdout) == (2, "")
        assert "Usage: " in stderr

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (["retrieve"], "pass --prompt, --history or --input"),
            (
                ["retrieve", "-p", "w5", "--input", "x.jsonl"],
                "pass --prompt, --history or --input, and only one of them",
            ),
            (["retrieve", "w5"], "got 'w5'; pass the prompt with -p"),
            (["explain", "-p", "w5", "more", "--item", "t3"], "got 'more'; pass the prompt with -p"),
        ],
    )
    def test_wrong_usage_names_the_option(self, call, words, expected):
        assert expected in " ".join(call(*words, on_shop=False)[2].replace("│", " ").split())

    def test_other_folders_and_files(self, call, shop, tmp_path, monkeypatch):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        things = shop[0] / "things.hedgerow"
        asked = ("retrieve", "-p", "w5", "--index")
        assert_refused(call(*asked, things, "--model", tmp_path, on_shop=False), "cannot be loaded as a language model")
        (tmp_path / "file").touch()
        monkeypatch.chdir(tmp_path.parent)
        for absent in (tmp_path / "no" / "model", "nodir", f"{tmp_path.name}/model", "./a/b", tmp_path / "file"):
            assert_refused(call(*asked, things, "--model", absent, on_shop=False), f"--model {absent} ")
        check_model("owner/name.of-1")
        missing = ("--model", shop[0] / "model")
        assert_refused(call(*asked, tmp_path / "none", *missing, on_shop=False), "does not exist")
        damaged = tmp_path / "damaged"
        damaged.mkdir()
        for path in (shop[0] / "model").iterdir():
            content = path.read_bytes()
            (damaged / path.name).write_bytes(content[:20] if path.suffix == ".safetensors" else content)
        assert_refused(call(*asked, things, "--model", damaged, on_shop=False), "cannot be loaded as a language model")

    def test_an_index_of_another_model(self, call, shop, tmp_path):
        other = hr.build_index(hr.Catalog([[0, 1]], codebook_sizes=9))
        other.save(tmp_path / "other.hedgerow")
        words = ("retrieve", "-p", "w5", "--model", shop[0] / "model", "--index", tmp_path / "other.hedgerow")
        assert_refused(call(*words, on_shop=False), "SIDs of 2 codes, but the token map has 3 levels")
