"""What several protocols use.

In reading order: ``group_relative`` (settings, judging and learning of all that learn from groups), ``learner``,
``update_schedules``, ``rollouts``, ``monitor`` (looks at the validation questions, when to stop), ``boundary`` (what comes
back is checked), ``competence``, ``ranking``, ``confidence_graph``, ``trust``, ``one_shot``, ``supervised``,
``aggregation``, ``server_optimizers``, ``weights_on_the_wire``, ``async_averaging``, ``state``.
"""
