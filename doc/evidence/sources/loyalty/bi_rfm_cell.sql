select program_id, r, f, sum(members) as members, sum(amount) as amount from loyalty.bi_rfm_cell where method = 'cume' group by 1, 2, 3
