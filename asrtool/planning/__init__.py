"""`asrtool plan`: the memory, time, communication and cost of a training before it is started."""
