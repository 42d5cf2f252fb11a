"""Real language models: server policy and client evaluators. Imports torch; loaded only when fidelity is real.

In reading order: ``bundle`` (all models of a run), ``ready_models``, ``zoo``, ``adapters``, ``tokenizer``,
``tokens``, ``language``, ``sampling``, ``likelihood``, ``policy``, ``objective``, ``evaluator``, ``evaluation``,
``training``, ``training_jobs``, ``muon``, ``weights``, ``client_training``, ``dp_sgd``,
 ``embedding``, ``row_generator``, ``private_evolution``, ``synthesis``; how they are made fast:
``lean_llama``, ``packed``, ``stacked``, ``gradients``, ``placement``, ``ray_scoring``.
"""
