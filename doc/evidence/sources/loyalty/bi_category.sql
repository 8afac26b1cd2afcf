select * from loyalty.bi_category
