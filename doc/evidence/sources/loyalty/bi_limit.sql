select program_id, limit_name, coalesce(verdict, 'never reached') as verdict, sum(decisions) as decisions, sum(points_wanted - points) as points_kept from loyalty.bi_limit group by 1, 2, 3
