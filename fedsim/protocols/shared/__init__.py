"""What several protocols use.

In reading order: ``group_relative`` (settings, judging and learning of all that learn from groups), ``learner``,
``update_schedules``, ``rollouts``, ``monitor`` (looks at the validation questions, when to stop), ``boundary`` (what comes
back is checked), ``client_selection`` (who is asked), ``expert_ranking``, ``confidence_graph``, ``trust`` (weighs scores),
``one_shot``, ``supervised``, ``aggregation``, ``server_optimizers``, ``weights_on_the_wire``, ``async_averaging``, ``state``.
"""
