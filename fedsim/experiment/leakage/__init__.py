"""What a finished run gave away, measured by attacks on it: who was in the training data, and which private answers.

In reading order: ``measure``, ``suspects`` (whom the attacks ask about, and how they are told apart), then by what travels:
``replies`` (rewards and answers), ``weights`` (adapters; the final policy), ``synthetic_rows``; ``trusted_answers``.

On every wire the same question, was this row in this client's training data, is asked of the same suspects by two servers. An
*honest* one keeps to the protocol and reads what it gets; a *choosing* one also chooses what it sends down:

* ``rewards``: it sends the row's question with its true answer;
* ``answers``: it asks the row's question, and looks whether the answer is right;
* ``adapters``: it sends a module that was made to forget the suspects (gradient ascent): those that the client trains on come
  back further;
* ``synthetic``: nothing. What a client sends depends on nothing that it is sent, so there is no such attack.

An honest server that sees no row scored, of rewards and answers, has its own final policy: ``policy``, of every protocol.

Attacks are simple ones: what they find is there, what they do not find may be. Left out: hostile clients, shadow models,
several rounds of one client, and gradients inverted into text.
"""
