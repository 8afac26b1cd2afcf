select * from loyalty.bi_liability
