"""Task settings: strict, documented, and cheap to import."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from fedsim.tasks.config import AnswersConfig, PublicErrorsConfig, SizesConfig, TasksConfig


def read(text):
    return TasksConfig.model_validate_json(text)


def test_defaults_are_the_quick_start():
    tasks = read("{}")
    assert list(tasks.options) == ["chain_sum", "products", "gcd", "simple_equations", "spell_backward"]
    assert tasks.sizes.auxiliary == 100
    assert tasks.sizes.test >= 2000
    assert tasks.errors.class_rates() == (pytest.approx(0.9), pytest.approx(0.1))
    assert tasks.answers == AnswersConfig(coverage=0.0, noise=0.0)


def test_domains_may_carry_options():
    tasks = read('{"domains": {"gcd": {"max_value": 30}, "lcm": {}}}')
    assert tasks.options == {"gcd": {"max_value": 30}, "lcm": {}}


def test_an_own_file_is_not_spoiled_unless_asked():
    assert read('{"file": "my.jsonl"}').errors.class_rates() == (0.0, 0.0)
    assert read('{"file": "my.jsonl", "public_errors": {"rate": 0.2}}').errors.class_rates() == (
        pytest.approx(0.4),
        0.0,
    )


def test_private_rows_per_client_replace_the_total():
    assert TasksConfig(sizes=SizesConfig(private=50)).num_private(8) == 50
    assert TasksConfig(sizes=SizesConfig(private_per_client=10)).num_private(8) == 80


@pytest.mark.parametrize(
    ("rates", "rate", "spread"), [((0.5, 0.5), 0.5, 0.0), ((1.0, 0.0), 0.5, 0.5), ((0.2, 0.0), 0.1, None)]
)
def test_class_rates_average_to_the_rate(rates, rate, spread):
    assert PublicErrorsConfig(rate=rate, spread=spread).class_rates() == pytest.approx(rates)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"domain": ["gcd"]}', "Extra inputs"),
        ('{"domains": []}', "domains is empty"),
        ('{"domains": ["gcd", "gcd"]}', "a name twice"),
        ('{"sizes": {"test": 0}}', "greater than or equal to 1"),
        ('{"sizes": {"test": "2000"}}', "valid integer"),
        ('{"sizes": {"public": -1}}', "greater than or equal to 0"),
        ('{"public_errors": {"rate": 1.5}}', "less than or equal to 1"),
        ('{"public_errors": {"rate": 0.9, "spread": 0.4}}', "spread is 0.4; must be at most"),
        ('{"public_errors": {"rate": NaN}}', "finite number"),
        ('{"partition": {"beta": 0}}', "greater than or equal to 0.000001"),
        ('{"partition": {"kind": "skewed"}}', "'iid', 'dirichlet' or 'shared'"),
        ('{"answers": {"coverage": 2}}', "less than or equal to 1"),
        ('{"keys": {"question": "problem"}}', "keys says how an own file is read; give file too"),
        ('{"splits": {"train": "pool"}}', "splits says how an own file is read; give file too"),
        ('{"file": "my.csv", "keys": {"problem": "question"}}', "keys.problem"),
        ('{"file": "my.csv", "keys": {"question": ""}}', "at least 1 character"),
        (
            '{"file": "my.csv", "splits": {"train": "Pool"}}',
            "splits maps 'train' to 'Pool'; must be one of public",
        ),
        ('{"stop": ["\\n", ""]}', "at least 1 character"),
        ('{"stop": ["a", "a"]}', "stop holds a text twice"),
        ('{"stop": ["b"], "answer_prefix": "abc"}', "answer_prefix holds the stop text 'b'"),
        ('{"prompt_template": "Q: question"}', r"\{question\} exactly once"),
        ('{"answer_pattern": "(a+)+"}', "repeats a group"),
        ('{"match": "fuzzy"}', "'exact', 'numeric', 'caseless' or 'normalized'"),
    ],
)
def test_wrong_settings_are_refused_with_their_reason(text, complaint):
    with pytest.raises(ValidationError, match=complaint):
        read(text)


def test_settings_import_neither_torch_nor_reasoning_gym():
    code = (
        "import sys, fedsim.tasks.config, fedsim.tasks.dataset\n"
        "heavy = {'torch', 'transformers', 'reasoning_gym', 'sympy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
