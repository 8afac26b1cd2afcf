select * from loyalty.bi_pareto
