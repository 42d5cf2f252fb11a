"""Models of a timing run: they answer, score and learn without any weights, so that only the world counts.

In reading order: ``tasks`` (questions), ``stand_ins`` (policy, evaluator), ``training``, ``synthesis``.
"""
