"""Training: the folder of a model, resumed trainings, content, base models, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from training.shop import GROUPS, ITEMS, OPTIONS, clicks, histories, shop, sids

import hedgerow as hr

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM  # noqa: E402

from hedgerow.hf import Retriever  # noqa: E402
from hedgerow.hf.loading import load_retriever  # noqa: E402
from hedgerow.training import Histories, TrainingOptions, evaluate, train  # noqa: E402
from hedgerow.training.base_model import new_network, vocabulary  # noqa: E402
from hedgerow.training.batches import ByLength, Collator, Sequences, windows  # noqa: E402
from hedgerow.training.content import content_of_embeddings, content_of_quantizer, no_content  # noqa: E402
from hedgerow.training.folders import Folders  # noqa: E402
from hedgerow.training.vocabulary import item_tokens  # noqa: E402


@pytest.fixture(scope="module")
def index():
    return shop()


@pytest.fixture(scope="module")
def trained(index, tmp_path_factory):
    """A report, and what the progress was."""
    calls = []
    folder = tmp_path_factory.mktemp("trained") / "model"
    report = train(index, histories(index), folder, progress=lambda *call: calls.append(call), **OPTIONS)
    return report, calls


class TestFolder:
    def test_a_plain_model_that_has_learned(self, index, trained):
        report, calls = trained
        assert report.best["recall@10"] > 2 * report.best["popular recall@10"]
        assert report.best["recall@10"] == max(entry["recall@10"] for entry in report.validations)
        assert {what.partition(" ")[0] for what, _, _ in calls} == {"epoch", "validation"}
        model = AutoModelForCausalLM.from_pretrained(report.folder)
        assert type(model) is Qwen3ForCausalLM
        assert model.num_parameters() == report.parameters
        assert set(load_file(report.folder / "model.safetensors")) == set(model.state_dict())
        retriever = load_retriever(report.folder, index)
        assert retriever.normalize == "allowed"
        seen = ["i3", "i14", "i25"]
        (results,) = retriever.retrieve(retriever.history_prompt(seen), k=6, exclude=seen)
        in_next_group = [int(item[1:]) % GROUPS == 6 for item in results.item_ids]
        assert sum(in_next_group) >= 4

    def test_loss_among_the_allowed_codes(self, index, trained, tmp_path):
        report = train(index, histories(index), tmp_path / "model", loss="allowed", **OPTIONS)
        assert report.best["recall@10"] > 2 * report.best["popular recall@10"]
        ours, other = (load_file(folder / "model.safetensors") for folder in (report.folder, trained[0].folder))
        assert not all(bool((ours[name] == other[name]).all()) for name in ours)
        assert json.loads((report.folder / "training.json").read_text())["options"]["loss"] == "allowed"
        with pytest.raises(hr.ArgumentError, match="loss must be one of codes, allowed"):
            TrainingOptions(loss="vocab")

    def test_files(self, index, trained):
        folder = trained[0].folder
        names = {path.name for path in folder.iterdir()}
        assert {"README.md", "config.json", "tokenizer.json", "tokens.json", "split.parquet", "training.json"} <= names
        assert not list(folder.parent.glob(".*"))
        facts = json.loads((folder / "training.json").read_text())
        assert facts["split"] == {"method": "leave-one-out"}
        assert facts["options"]["size"] == "tiny"
        assert len(facts["validations"]) == len(trained[0].validations)
        assert len(pq.read_table(folder / "split.parquet")) == len(histories(index))
        tokens = hr.TokenMap.load(folder)
        vocabulary_ = AutoTokenizer.from_pretrained(folder).get_vocab()
        assert tokens.token_ids[1][4] == vocabulary_["<s_b_4>"]
        assert tokens.history == hr.HistoryForm((vocabulary_["<|history|>"],), (), 20)
        assert "Recall@10" in (folder / "README.md").read_text()

    def test_the_tokenizer_reads_a_history_as_text(self, index, trained):
        retriever = load_retriever(trained[0].folder, index)
        text = "<|history|><s_a_3><s_b_0><s_a_4><s_b_1>"
        assert retriever.encode(text) == [retriever.history_prompt(["i3", "i14"])]

    def test_text_without_a_word_that_the_model_knows_is_refused(self, index, trained):
        retriever = load_retriever(trained[0].folder, index)
        for prompt in ("recommend me a lamp", "i3", ""):
            with pytest.raises(
                hr.ArgumentError, match=r"trained on histories: pass retriever\.history_prompt|is empty"
            ):
                retriever.retrieve([retriever.history_prompt(["i3"]), prompt])


class TestHistoryPrompt:
    def test_of_the_latest_items(self, index):
        tokens = hr.TokenMap.from_offsets([10, 30], 10, begin=(), end=())
        model = Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=50,
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=1,
                num_key_value_heads=1,
                head_dim=16,
            )
        )
        retriever = Retriever(model, index, tokens)
        assert retriever.history_prompt(["i3", "i14"]) == [13, 30, 14, 31]
        form = hr.HistoryForm(start=(1,), separator=(2,), max_items=2)
        retriever = Retriever(model, index, hr.TokenMap(tokens.token_ids, history=form))
        assert retriever.history_prompt(["i0", "i3", "i14"]) == [1, 13, 30, 2, 14, 31, 2]
        assert retriever.history_prompt(["gone", "i3"], missing="ignore") == [1, 13, 30, 2]
        unknown = r"4 of 5 items of the history are not in the index and were skipped; the first: 'a', 'b', 'c'\."
        with pytest.warns(UserWarning, match=unknown) as warned:
            assert retriever.history_prompt(np.array(["a", "i3", "b", "c", "d"]), missing="warn") == [1, 13, 30, 2]
        assert warned[0].filename == __file__
        assert retriever.history_prompt(["i3"], missing="warn") == [1, 13, 30, 2]
        with pytest.raises(hr.ArgumentError, match="missing must be one of raise, warn, ignore; got 'skip'"):
            retriever.history_prompt(["i3"], missing="skip")  # pyright: ignore[reportArgumentType]
        with pytest.raises(hr.ArgumentError, match=r"1 of 2 items of the history are not in the index.*'gone'"):
            retriever.history_prompt(["gone", "i3"])
        with pytest.raises(hr.ArgumentError, match="the history has no items"):
            retriever.history_prompt(["gone"], missing="ignore")

    def test_ragged_sids_are_written_with_one_end(self):
        index = hr.build_index(hr.Catalog([[0], [0, 1], [1, 0, 2]], codebook_sizes=3, ragged=True, item_ids="abc"))
        options = TrainingOptions(device="cpu", separator=True)
        tokenizer, tokens = vocabulary(index, options)
        names = tokenizer.get_vocab()
        items = item_tokens(tokens, index)
        ids, levels, codes = items.sequence(index.rows(["a", "b", "c"]))
        texts = [
            "<|history|>",
            "<s_a_0>",
            "<|sid_end|>",
            "<|item|>",
            "<s_a_0>",
            "<s_b_1>",
            "<|sid_end|>",
            "<|item|>",
            "<s_a_1>",
            "<s_b_0>",
        ]
        assert ids.tolist() == [names[text] for text in texts]
        assert levels.tolist() == [0, 1, -1, 0, 1, 2, -1, 0, 1, 2]
        assert codes[levels >= 0].tolist() == [0, 3, 0, 1, 3, 1, 0, 2]


class TestBatches:
    def test_windows_cover_all_items_and_have_half_of_the_history(self):
        items = np.arange(53)
        parts = windows([items, items[:0], items[:3]], 10)
        assert set(np.concatenate(parts[:-1])) == set(items.tolist())
        assert max(map(len, parts)) == 10
        assert parts[0].tolist() == list(range(43, 53))
        assert parts[1].tolist() == list(range(38, 48))
        assert parts[-1].tolist() == [0, 1, 2]

    def test_the_order_has_each_window_once_and_depends_on_the_epoch(self):
        lengths = np.random.default_rng(0).integers(1, 30, 103)
        sampler, orders = ByLength(lengths, 10, seed=1), []
        for epoch in range(2):
            sampler.set_epoch(epoch)
            places = list(sampler)
            assert {number for _, number in places} == set(range(103))
            assert {number for number, _ in places} == {epoch}
            orders.append([number for _, number in places])
            spread = [np.ptp(lengths[orders[-1][start : start + 10]]) for start in range(0, 100, 10)]
            assert np.mean(spread) < 6
        assert orders[0] != orders[1]

    def test_what_is_left_out_depends_on_seed_epoch_and_window(self):
        data = Sequences([np.arange(40)] * 2, 0.5, seed=3)
        assert data[0, 0].tolist() == data[0, 0].tolist()
        assert data[0, 0].tolist() != data[1, 0].tolist()
        assert data[0, 0].tolist() != data[0, 1].tolist()
        assert 5 < len(data[0, 0]) < 35
        assert len(Sequences([np.arange(3)], 0.999, seed=0)[0, 0]) >= 1


@pytest.mark.parametrize("kind", ["none", "quantizer", "embeddings"])
def test_the_exported_model_gives_the_losses_of_the_network(index, kind):
    options = TrainingOptions(size="tiny", dropout=0.5, device="cpu")
    embeddings = np.random.default_rng(0).normal(size=(ITEMS, 12)).astype(np.float32)
    content = no_content(index)
    if kind == "quantizer":
        books = [
            np.random.default_rng(level).normal(size=(size, 12)) for level, size in enumerate(index.codebook_sizes)
        ]
        content = content_of_quantizer(index, hr.Quantizer("residual", tuple(books), index.codebook_sizes))
    elif kind == "embeddings":
        content = content_of_embeddings(index, embeddings)
    tokenizer, tokens = vocabulary(index, options)
    network = new_network(index, tokenizer, tokens, content, options).eval()
    items = item_tokens(tokens, index)
    batch = Collator(items, tokenizer.pad_token_id)([np.array([3, 7, 9]), np.array([5])])
    plain = network.exported()
    logits = plain(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = 0
    for level, table in enumerate(tokens.token_ids):
        asked = batch["levels"] == level
        expected += torch.nn.functional.cross_entropy(logits[asked][:, torch.tensor(table)], batch["codes"][asked])
    assert torch.isclose(network(**batch)["loss"], torch.as_tensor(expected), atol=1e-4)


def test_means_of_embeddings_are_the_centroids_of_a_quantizer_of_the_items(index):
    embeddings = np.random.default_rng(0).normal(size=(ITEMS, 3)).astype(np.float32)
    first, second = content_of_embeddings(index, embeddings)
    assert first is not None
    assert second is not None
    codes = index.sids_of(index.item_ids)
    centred = embeddings - embeddings.mean(axis=0)
    assert np.allclose(first[2], centred[codes[:, 0] == 2].mean(axis=0), atol=1e-5)
    rest = centred - first[codes[:, 0]]
    assert np.allclose(second[3], rest[codes[:, 1] == 3].mean(axis=0), atol=1e-5)


class StoppedError(Exception):
    """An interruption."""


def stop_after(step):
    def progress(what, done, _):
        if what.startswith("epoch") and done == step:
            raise StoppedError

    return progress


def test_a_resumed_training_gives_the_same_model(index, trained, tmp_path):
    data, folder = histories(index), tmp_path / "model"
    steps = trained[0].validations[0]["step"]
    with pytest.raises(StoppedError):
        train(index, data, folder, progress=stop_after(steps + 2), **OPTIONS)
    assert not folder.exists()
    with pytest.raises(hr.ArgumentError, match=r"an interrupted training.*resume=True"):
        train(index, data, folder, **OPTIONS)
    with pytest.raises(hr.ArgumentError, match=r"had other values of dropout, epochs"):
        train(index, data, folder, resume=True, **(OPTIONS | {"epochs": 9, "dropout": 0.4}))
    report = train(index, data, folder, resume=True, **OPTIONS)
    assert [entry["recall@10"] for entry in report.validations] == [
        entry["recall@10"] for entry in trained[0].validations
    ]
    one, other = (load_file(path / "model.safetensors") for path in (folder, trained[0].folder))
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_damaged_checkpoints_are_passed_over(index, trained, tmp_path):
    folder, steps = tmp_path / "model", trained[0].validations[0]["step"]
    with pytest.raises(StoppedError):
        train(index, histories(index), folder, progress=stop_after(2 * steps + 1), **OPTIONS)
    folders = Folders(folder)
    whole = folders.last_checkpoint()
    assert whole is not None
    for name in ("trainer_state.json", "model.safetensors", "optimizer.pt", "scheduler.pt"):
        damaged = folders.hidden / "checkpoint-999"
        shutil.copytree(whole, damaged)
        assert folders.last_checkpoint() == damaged
        (damaged / name).write_bytes((damaged / name).read_bytes()[:-8])
        assert folders.last_checkpoint() == whole
        shutil.rmtree(damaged)
    (folders.hidden / "run.json").write_text('{"options')
    with pytest.raises(hr.ArgumentError, match=r"run\.json is damaged.*--overwrite"):
        train(index, histories(index), folder, resume=True, **OPTIONS)


class TestOtherData:
    """A model is not evaluated on histories, and not used with SIDs, that it was not trained with."""

    def test_histories(self, index, trained):
        table, folder = clicks(), trained[0].folder
        evaluate(folder, index, histories(index), users=2)
        backwards = table.set_column(2, "timestamp", pa.array([-time for time in table["timestamp"].to_pylist()]))
        others = table.set_column(1, "item_id", pa.array(["i7"] * len(table)))
        for other in (backwards, others):
            with pytest.raises(hr.ArgumentError, match="was trained on other histories"):
                evaluate(folder, index, Histories.from_arrow(other, index))

    def test_a_catalog_with_other_items_as_well(self, index, trained):
        attributes = {"title": ["x"], "price": [0]}
        more = hr.merge(index, hr.Catalog([[9, 5]], item_ids=["i-1"], attributes=attributes))
        evaluate(trained[0].folder, more, histories(more), users=2)

    def test_sids(self, trained):
        ids = [f"i{number}" for number in range(ITEMS)]
        with pytest.raises(hr.ArgumentError, match=r"trained with other Semantic IDs.* of 60 items of a sample"):
            load_retriever(trained[0].folder, hr.build_index(hr.Catalog(sids()[::-1], item_ids=ids)))
        # Some items may have moved since.
        moved = sids()
        moved[[3, 7]] = moved[[7, 3]]
        load_retriever(trained[0].folder, hr.build_index(hr.Catalog(moved, item_ids=ids)))
        with pytest.warns(UserWarning, match="the index has none of 60 items"):
            load_retriever(trained[0].folder, hr.build_index(hr.Catalog(sids())))


@pytest.mark.parametrize("lora", [None, 4])
def test_a_base_model(index, tmp_path, lora):
    if lora:
        pytest.importorskip("peft")
    base = tmp_path / "base"
    options = TrainingOptions(size="tiny", device="cpu")
    other = hr.build_index(hr.Catalog([[0]], codebook_sizes=1))
    tokenizer, tokens = vocabulary(other, options)
    vocabulary_size = len(tokenizer)
    new_network(other, tokenizer, tokens, no_content(other), options).exported().save_pretrained(base)
    renamed = {
        name.replace("<s_a_0>", "word").replace("<|history|>", "two"): i for name, i in tokenizer.get_vocab().items()
    }
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel(renamed, unk_token="<|unknown|>"))
    PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<|pad|>", unk_token="<|unknown|>").save_pretrained(
        base
    )
    settings = OPTIONS | {"epochs": 1, "base": base, "lora": lora, "learning_rate": 1e-3, "max_items": 5}
    del settings["size"]
    report = train(index, histories(index), tmp_path / "model", **settings)
    weights = load_file(report.folder / "model.safetensors")
    old = load_file(base / "model.safetensors")
    assert set(weights) == set(old)
    kept = weights["model.embed_tokens.weight"][:vocabulary_size]
    assert torch.equal(kept[vocabulary_size - 1], old["model.embed_tokens.weight"][vocabulary_size - 1])
    changed = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(weights[changed], old[changed])
    assert AutoTokenizer.from_pretrained(report.folder).get_vocab()["word"] == renamed["word"]
    (results,) = load_retriever(report.folder, index).retrieve([[0, 4, 20]], k=3)
    assert len(results) == 3


class TestRefused:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"size": "huge"}, "size must be one of tiny, small, medium, large"),
            ({"epochs": 0}, "epochs must be a positive integer"),
            ({"dropout": 1}, "dropout must be a number of at least 0 and below 1"),
            ({"lora": 4}, "lora needs base"),
            ({"speed": 4}, "there is no setting 'speed'"),
            ({"base": "owner/name"}, "base must be the folder of a causal language model"),
        ],
    )
    def test_settings(self, index, tmp_path, settings, message):
        with pytest.raises(hr.ArgumentError, match=message):
            train(index, histories(index), tmp_path / "model", **settings)
        assert not list(tmp_path.iterdir())

    def test_folders(self, index, tmp_path):
        data = histories(index)
        (tmp_path / "file").write_text("x")
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "letter.txt").write_text("x")
        for name, options, message in [
            ("file", {}, "exists already"),
            ("file", {"overwrite": True}, "is a file"),
            ("mine", {"overwrite": True}, "a folder without a trained model"),
            ("new", {"resume": True}, "no interrupted training"),
        ]:
            with pytest.raises(hr.ArgumentError, match=message):
                train(index, data, tmp_path / name, **options, **OPTIONS)
        assert {path.name for path in tmp_path.iterdir()} == {"file", "mine"}

    def test_content(self, index, tmp_path):
        quantizer = hr.Quantizer("residual", (np.ones((4, 3)),), (4,))
        with pytest.raises(hr.ArgumentError, match=r"codebooks of \[4\] codes, but the index has \[10, 6\]"):
            train(index, histories(index), tmp_path / "model", quantizer=quantizer, **OPTIONS)
        table = pa.table({"item_id": ["i1"], "embedding": [[1.0, 2.0]]})
        with pytest.raises(hr.ArgumentError, match=r"59 items of the index have no embedding"):
            train(index, histories(index), tmp_path / "model", embeddings=table, **OPTIONS)
        with pytest.raises(hr.ArgumentError, match="not both"):
            train(index, histories(index), Path("model"), embeddings=table, quantizer=quantizer)
