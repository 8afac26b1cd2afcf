select program_id, day, sum(purchases) as purchases, sum(net_amount) as net_amount from loyalty.bi_day group by program_id, day
