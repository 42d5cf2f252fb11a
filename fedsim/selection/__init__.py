"""Who is asked: the confidence graph and the controls it is compared with."""
